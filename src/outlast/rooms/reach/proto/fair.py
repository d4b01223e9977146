"""How many of something each may have when many share it: as many as are left, so that others find some. Pure.

One alone can have half of all; of two who take what they can get each has a third, and so on. Who has few takes what
comes free before who has many, and nobody has to be told how many there are (Choudhury and Hahne's dynamic thresholds).
Some that act together have all of that, since there are no halves of one; so besides there are spare ones, of which
who has none gets one.
"""

from __future__ import annotations


class Fair:
    """So many there are, and who has how many of them; whose they are is any bytes, None for who need not share."""

    __slots__ = ("_most", "_own", "_spare", "taken")

    def __init__(self, most: int, spare: int = 0) -> None:
        """Nobody has any of ``most``, nor of the spare ones."""
        self._most = most
        self._spare = spare
        self._own: dict[bytes, int] = {}
        self.taken = 0

    def take(self, whose: bytes | None) -> bool:
        """Take one more, if there is one for them."""
        left = self._most - self.taken
        if whose is not None:
            own = self._own.get(whose, 0)
            if left <= own and (own or left + self._spare <= 0):
                return False
            self._own[whose] = own + 1
        elif left <= 0:
            return False
        self.taken += 1
        return True

    def give(self, whose: bytes | None) -> None:
        """Give one back that was taken."""
        self.taken -= 1
        if whose is not None:
            left = self._own[whose] - 1
            if left:
                self._own[whose] = left
            else:
                del self._own[whose]
