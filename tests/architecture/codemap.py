"""The map in ARCHITECTURE.md: every module with the first sentence of its docstring.

`python3 dev.py map` writes it between the two marker lines; `dev.py check` and a test compare it.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.tree import ROOT

PAGE = ROOT / "ARCHITECTURE.md"
BEGIN, END = "<!-- map: made by dev.py map -->", "<!-- end of map -->"
PLACE = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.DOTALL)


def code_map(source: Path) -> str:
    """Return the map of the package tree under `source` (the folder `src`), as Markdown."""
    modules = sorted(source.glob("outlast/**/*.py"), key=lambda path: (path.parent, path.name))
    trees = {path.relative_to(source): ast.parse(path.read_bytes()) for path in modules}
    uses: dict[str, set[str]] = {}
    lines = ["```"]
    for path, tree in trees.items():
        part = part_of(path.with_suffix("").parts)
        uses.setdefault(part, set()).update(set(imported_parts(tree)) - {part})
        lines.append(f"{path.as_posix():<40} {first_sentence(tree)}".rstrip())
    lines += ["```", "", "| part | imports |", "| --- | --- |"]
    lines += [f"| {part} | {', '.join(sorted(uses[part])) or '-'} |" for part in sorted(uses)]
    return "\n".join(lines)


def part_of(name: tuple[str, ...]) -> str:
    """Return the part of the house that a module belongs to: `kernel`, `rooms.carry`, `errors`."""
    depth = 3 if name[1:2] == ("rooms",) else 2
    return ".".join(piece for piece in name[1:depth] if piece != "__init__") or "outlast"


def imported_parts(tree: ast.Module) -> Iterator[str]:
    """Yield the part behind each import of the program's own code, deferred ones included."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                targets = [name.name for name in names]
            case ast.ImportFrom(module=str(module), names=names):
                # `from outlast.rooms import carry` means rooms.carry, not rooms.
                targets = [f"{module}.{name.name}" for name in names]
            case _:
                continue
        for target in targets:
            if target.split(".")[0] == "outlast":
                yield part_of(tuple(target.split(".")))


def first_sentence(tree: ast.Module) -> str:
    """Return the first sentence of a module's docstring, on one line, without the full stop."""
    paragraph = (ast.get_docstring(tree) or "").split("\n\n")[0]
    return re.split(r"(?<=\.) ", " ".join(paragraph.split()))[0].rstrip(".")


def with_map(page: str, source: Path) -> str:
    """Return the text of ARCHITECTURE.md with the current map in its place.

    Raises ValueError when the two marker lines are not there.
    """
    if not PLACE.search(page):
        raise ValueError(f"ARCHITECTURE.md needs the lines {BEGIN!r} and {END!r}.")
    return PLACE.sub(lambda _: f"{BEGIN}\n\n{code_map(source)}\n\n{END}", page, count=1)


def main(arguments: list[str]) -> int:
    """Write the map, or with --check only say whether it is up to date."""
    page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    try:
        fresh = with_map(page, ROOT / "src")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    if arguments != ["--check"]:
        PAGE.write_text(fresh, encoding="utf-8")
    elif fresh != page:
        print("The map in ARCHITECTURE.md is not the code: run python3 dev.py map.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
