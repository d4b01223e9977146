"""Errors speak the reader's language: what a page can show is a line with named parts, which is translated first."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path

import pytest

import outlast.errors

SOURCE = Path(outlast.errors.__file__).parent

ON_NO_PAGE = (
    # what is said at a terminal
    "cli.py",
    "*_cli.py",
    "commands.py",
    "ui/command.py",
    "edges/config.py",
    "edges/daemon.py",
    "edges/main.py",
    "edges/spread/release.py",
    "edges/spread/signing.py",
    "edges/spread/update.py",
    "edges/spread/wheels.py",
    "rooms/reach/io/acme.py",
    # what a program is told through the local API
    "api.py",
    "edges/residents.py",
    "ui/operation.py",
    # what is said to tor, and of formats that only the command line reads
    "rooms/reach/io/managed.py",
    "rooms/reach/proto/pluggable.py",
    "rooms/watch/proto/mrt.py",
)
"""Only in these files an error may be put together in English."""


def error_classes(classes: Mapping[str, set[str]]) -> set[str]:
    """The names of the classes below OutlastError, of all classes and their bases, and Sentence."""
    found: set[str] = set()
    more = {"OutlastError"}
    while more:
        found |= more
        more = {name for name, bases in classes.items() if bases & found} - found
    return found | {"Sentence"}


def called(node: ast.Call) -> str:
    """The name of what is called, without that of its module."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def is_put_together(line: ast.expr) -> bool:
    """Whether a line cannot be translated any more: an f-string, a sum, ``str(error)``, ``", ".join(...)``."""
    match line:
        case ast.JoinedStr() | ast.BinOp():
            return True
        case ast.Call(func=ast.Name(id="str") | ast.Attribute(attr="format" | "join")):
            return True
        case ast.IfExp(body=one, orelse=other):
            return is_put_together(one) or is_put_together(other)
        case _:
            return False


def is_filled(call: ast.Call) -> bool:
    """Whether a line's places are exactly the parts that it gets."""
    line = call.args[0]
    if not isinstance(line, ast.Constant):
        return True
    given = {keyword.arg: 1 for keyword in call.keywords if keyword.arg}
    if len(call.args) > 1 and isinstance(call.args[1], ast.Dict):
        given = {key.value: 1 for key in call.args[1].keys if isinstance(key, ast.Constant)}
    asked = set[str]()

    class Asked(dict[str, int]):
        def __getitem__(self, name: str) -> int:
            asked.add(name)
            return 1

    try:
        line.value % Asked()
    except (TypeError, ValueError):  # a plain % in a line without parts
        return not given
    return asked == given.keys()


@pytest.fixture(scope="module")
def nodes() -> dict[str, list[ast.Call | ast.ClassDef]]:
    """All calls and classes of each file."""
    return {
        str(path.relative_to(SOURCE)): [
            node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.Call | ast.ClassDef)
        ]
        for path in sorted(SOURCE.rglob("*.py"))
    }


@pytest.fixture(scope="module")
def lines(nodes: dict[str, list[ast.Call | ast.ClassDef]]) -> list[tuple[str, ast.Call]]:
    """Each place where an error or a sentence is made."""
    classes = {
        node.name: {ast.unparse(base) for base in node.bases}
        for found in nodes.values()
        for node in found
        if isinstance(node, ast.ClassDef)
    }
    errors = error_classes(classes)
    return [
        (name, node)
        for name, found in nodes.items()
        for node in found
        if isinstance(node, ast.Call) and node.args and called(node) in errors
    ]


def test_no_error_that_a_page_can_show_is_put_together_in_english(lines: list[tuple[str, ast.Call]]) -> None:
    assert len(lines) > 900
    wrong = [
        f"{name}:{call.lineno}"
        for name, call in lines
        if not any(fnmatch(f"/{name}", f"*/{pattern}") for pattern in ON_NO_PAGE) and is_put_together(call.args[0])
    ]
    assert wrong == [], 'give the parts a name: UsageError("there is no port %(port)d", port=port)'


def test_every_line_gets_the_parts_that_it_names(lines: list[tuple[str, ast.Call]]) -> None:
    assert [f"{name}:{call.lineno}" for name, call in lines if not is_filled(call)] == []


def test_pages_translate_an_error_and_not_its_english_line(nodes: dict[str, list[ast.Call | ast.ClassDef]]) -> None:
    wrong = [
        f"{name}:{node.lineno}"
        for name, found in nodes.items()
        for node in found
        if isinstance(node, ast.Call) and node.args and ast.unparse(node.func) in ("_", "translator(request)")
        if is_put_together(node.args[0])
    ]
    assert wrong == []


def test_every_file_that_is_passed_over_is_there(nodes: dict[str, list[ast.Call | ast.ClassDef]]) -> None:
    for pattern in ON_NO_PAGE:
        assert any(fnmatch(f"/{name}", f"*/{pattern}") for name in nodes), pattern


@pytest.mark.parametrize(
    ("source", "seen"),
    [
        ('UsageError("no %(x)s", x=x)', (False, True)),
        ('UsageError("100 %")', (False, True)),
        ('SocksError("no", 2)', (False, True)),
        ('Sentence("no %(x)s", {"x": x})', (False, True)),
        ('UsageError("no %(x)s", y=y)', (False, False)),
        ('UsageError("no", x=x)', (False, False)),
        ('UsageError("no %(x)s")', (False, False)),
        ('UsageError(f"no {x}")', (True, True)),
        ("UsageError(str(error))", (True, True)),
        ('UsageError("a" if b else f"{c}")', (True, True)),
    ],
)
def test_what_is_wrong_is_noticed(source: str, seen: tuple[bool, bool]) -> None:
    call = ast.parse(source, mode="eval").body
    assert isinstance(call, ast.Call)
    assert (is_put_together(call.args[0]), is_filled(call)) == seen
