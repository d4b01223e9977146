"""Every public name says what it promises, and no file is called after nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src"
NAMES_OF_NOTHING = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Yield the public names of a module that have no docstring, the module itself as ``<module>``.

    Private is what starts with an underscore, and what stands inside it; a property's setter and
    an overload are told by the definition that they belong to.
    """
    if not ast.get_docstring(tree):
        yield "<module>"
    yield from undocumented_in(tree.body, prefix="")


def undocumented_in(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    """Yield the public definitions among `body` and inside its classes that have no docstring."""
    for node in body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                pass
            case ast.AsyncFunctionDef(name=name):
                pass
            case ast.If(body=inner, orelse=otherwise):
                yield from undocumented_in([*inner, *otherwise], prefix)
                continue
            case _:
                continue
        marks = {ast.unparse(mark).rpartition(".")[2] for mark in node.decorator_list}
        if name.startswith("_") or marks & {"overload", "setter", "deleter"}:
            continue
        if not ast.get_docstring(node):
            yield f"{prefix}{name}"
        if isinstance(node, ast.ClassDef):
            yield from undocumented_in(node.body, f"{prefix}{name}.")


def test_every_public_name_has_a_docstring() -> None:
    missing = [
        f"{path.relative_to(SOURCE)}: {name}"
        for path in sorted(SOURCE.glob("outlast/**/*.py"))
        for name in undocumented(ast.parse(path.read_bytes()))
    ]
    assert missing == []


def test_a_missing_docstring_is_noticed_wherever_it_is_missing() -> None:
    source = """
class Told:
    "Yes."
    def untold(self): ...
    async def untold_too(self): ...
    @property
    def told(self): "Yes."
    @told.setter
    def told(self, value): ...
    def _private(self): ...
if True:
    def untold(): ...
class Untold:
    def untold(self): ...
class _Private:
    def inside(self): ...
"""
    assert list(undocumented(ast.parse(source))) == [
        "<module>",
        "Told.untold",
        "Told.untold_too",
        "untold",
        "Untold",
        "Untold.untold",
    ]


def test_no_file_or_folder_is_called_after_nothing() -> None:
    named = [path for path in SOURCE.glob("outlast/**/*") if path.stem in NAMES_OF_NOTHING]
    assert named == []
