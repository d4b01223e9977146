"""This implementation of negentropy V1 behind the line protocol of the reference's test scripts.

    python tests/peers/negentropy_harness.py [--random]

Standard input: ``item,<timestamp>,<hex id>``, then ``seal``, then ``initiate`` (to be the client)
and ``msg,<hex>``. Standard output: ``have,<hex id>`` and ``need,<hex id>`` (client), then
``msg,<hex>``, or ``done`` when the client is satisfied. FRAMESIZELIMIT in the environment bounds
each message in bytes. The bytes are the reference's; with ``--random`` the client cuts at random
ranks as it does in the program.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator

from outlast.kernel.setrec import Initiator, Responder, SetView


def serve(lines: Iterable[str], *, frame_size_limit: int, random: bool) -> Iterator[str]:
    """Answer the lines of one conversation; raises ValueError for a line out of the protocol."""
    items: list[tuple[int, bytes]] = []
    view: SetView | None = None
    initiator: Initiator | None = None
    for line in lines:
        match line.strip().split(","):
            case ["item", timestamp, item_id] if view is None:
                items.append((int(timestamp), bytes.fromhex(item_id)))
            case ["seal"] if view is None:
                view = SetView.from_items(items)
            case ["initiate"] if view is not None and initiator is None:
                initiator = Initiator(
                    view,
                    seed=os.urandom(32) if random else b"",
                    frame_size_limit=frame_size_limit,
                    aligned=not random,
                )
                yield f"msg,{initiator.initiate().hex()}"
            case ["msg", message] if initiator is not None:
                step = initiator.step(bytes.fromhex(message))
                yield from (f"have,{item_id.hex()}" for item_id in step.have)
                yield from (f"need,{item_id.hex()}" for item_id in step.need)
                yield "done" if step.reply is None else f"msg,{step.reply.hex()}"
            case ["msg", message] if view is not None:
                responder = Responder(view, frame_size_limit=frame_size_limit, aligned=not random)
                yield f"msg,{responder.step(bytes.fromhex(message)).hex()}"
            case _:
                raise ValueError(f"not understood here: {line[:60]!r}")


def main() -> None:
    """Serve standard input until it ends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--random", action="store_true", help="cut at random ranks")
    arguments = parser.parse_args()
    limit = int(os.environ.get("FRAMESIZELIMIT") or 0)
    for answer in serve(sys.stdin, frame_size_limit=limit, random=arguments.random):
        print(answer, flush=True)


if __name__ == "__main__":
    main()
