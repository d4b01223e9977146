"""A link between two ends in one process: whole messages in order, as TCP and Noise carry them."""

from __future__ import annotations

from collections import deque
from random import Random

from outlast.testing.clock import FakeClock


class MemoryLink:
    """Two ends, 0 and 1. What is sent at one arrives at the other after ``delay_ms``.

    With the probability ``loss`` a message is lost, and with it the link: an ordered, encrypted
    stream cannot go on without one of its messages. ``cut_after`` breaks the link when so many
    messages (of both directions) have arrived, and ``cut_after_bytes`` when so many bytes have: a
    message that is not whole by then does not arrive.
    """

    def __init__(
        self,
        clock: FakeClock,
        *,
        delay_ms: int = 0,
        loss: float = 0.0,
        seed: int = 0,
        cut_after: int | None = None,
        cut_after_bytes: int | None = None,
    ) -> None:
        """An open link; ``seed`` decides which messages are lost."""
        self.open = True
        self.delivered = [0, 0]
        """Messages that arrived at each end."""
        self.bytes_sent = [0, 0]
        """Bytes sent from each end."""
        self._clock = clock
        self._delay_ms = delay_ms
        self._loss = loss
        self._random = Random(seed)
        self._left = cut_after
        self._bytes_left = cut_after_bytes
        self._queues: tuple[deque[tuple[int, bytes]], deque[tuple[int, bytes]]] = (deque(), deque())

    def send(self, end: int, data: bytes) -> None:
        """Put a message in at ``end``; a closed link swallows it."""
        if not self.open:
            return
        self.bytes_sent[end] += len(data)
        if self._random.random() < self._loss:
            self.close()
            return
        self._queues[1 - end].append((self._clock() + self._delay_ms, data))

    def receive(self, end: int) -> bytes | None:
        """The next message that has arrived at ``end``, None if there is none yet."""
        queue = self._queues[end]
        if not self.open or not queue or queue[0][0] > self._clock():
            return None
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                self.close()
                return None
        if self._bytes_left is not None:
            self._bytes_left -= len(queue[0][1])
            if self._bytes_left < 0:
                self.close()
                return None
        self.delivered[end] += 1
        return queue.popleft()[1]

    def next_arrival_ms(self) -> int | None:
        """When the next message arrives, None if nothing is on the way."""
        return min((queue[0][0] for queue in self._queues if queue), default=None)

    def close(self) -> None:
        """Break the link; what is on the way is lost."""
        self.open = False
        for queue in self._queues:
            queue.clear()
