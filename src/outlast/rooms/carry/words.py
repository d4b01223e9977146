"""Search in a table of a vault: an index (FTS5, sequences of three characters) over its column ``text``.

It is filled when there is time, since that takes ten times as long as keeping the rows; what it does not hold yet is
looked through row by row. The table's integer primary key is ``n``, and grows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeVar

from outlast.kernel import Rows, Value

T = TypeVar("T")

SEARCH_MAX: Final = 200
INDEXED_CHARS: Final = 3
SHORT_SEARCH: Final = 5000
"""The index knows sequences of three characters; shorter words are looked for in this many of the newest rows."""


@dataclass(frozen=True, slots=True)
class Index:
    """The index ``name`` over the rows of ``table``."""

    table: str
    name: str

    @property
    def migrations(self) -> tuple[str, ...]:
        """The statements that make it, and see to it that what is deleted leaves it too."""
        return (
            f"CREATE VIRTUAL TABLE {self.name} USING fts5(text, content='{self.table}', content_rowid='n',"
            " tokenize='trigram')",
            f"INSERT INTO {self.name}({self.name}, rank) VALUES ('secure-delete', 1)",
            f"CREATE TRIGGER {self.name}_out AFTER DELETE ON {self.table}{self._forget}",
        )

    @property
    def rewritten(self) -> str:
        """The statement after which a row whose text is changed leaves the index."""
        return f"CREATE TRIGGER {self.name}_anew AFTER UPDATE OF text ON {self.table}{self._forget}"

    @property
    def fill(self) -> str:
        """Brings the next rows into the index; one parameter: how many at most."""
        return (
            f"INSERT INTO {self.name}(rowid, text) SELECT n, text FROM {self.table} WHERE n > {self._last}"
            " ORDER BY n LIMIT ?"
        )

    def find(
        self,
        vault: Rows,
        columns: str,
        read: Callable[[Sequence[Any]], T | None],
        words: Sequence[str],
        shown: tuple[str, Value] = ("?", 1),
    ) -> list[T]:
        """What ``read`` makes of the rows whose text holds all of these words, the newest first.

        In whatever case, also inside of longer ones. ``columns`` begin with ``text``, which ``read`` is given too.
        ``shown`` is a condition with one parameter, and its value: other rows are passed over, and so are those of
        which ``read`` makes None.
        """
        condition, value = shown
        folded = [word.casefold() for word in words]
        indexed = " ".join('"' + word.replace('"', '""') + '"' for word in words if len(word) >= INDEXED_CHARS)
        if indexed:
            rows = vault.query(
                f"SELECT n FROM {self.table} WHERE (n > {self._last} OR n IN (SELECT rowid"
                f" FROM {self.name} WHERE {self.name} MATCH ?)) AND {condition} ORDER BY at_ms DESC, n DESC",
                (indexed, value),
            )
        else:
            rows = vault.query(
                f"SELECT n FROM {self.table} WHERE {condition} ORDER BY n DESC LIMIT ?", (value, SHORT_SEARCH)
            )
        # The texts one by one: a word that stands in most of them would else bring all of a vault into memory.
        texts = (
            row for number in rows for row in vault.query(f"SELECT {columns} FROM {self.table} WHERE n = ?", number)
        )
        held = (read(row) for row in texts if all(word in row[0].casefold() for word in folded))
        return list(islice((one for one in held if one is not None), SEARCH_MAX))

    @property
    def _last(self) -> str:
        return f"(SELECT ifnull(max(id), 0) FROM {self.name}_docsize)"

    @property
    def _forget(self) -> str:
        return (
            f" WHEN EXISTS (SELECT 1 FROM {self.name}_docsize WHERE id = old.n) BEGIN"
            f" INSERT INTO {self.name}({self.name}, rowid, text) VALUES ('delete', old.n, old.text); END"
        )
