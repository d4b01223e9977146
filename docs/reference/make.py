"""Writes the parts of cli.md and api.md that repeat the program: ``python docs/reference/make.py``.

They stand between two marks in each file; a test compares them with the program.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from outlast.edges.api import operations_of
from outlast.edges.main import tree
from outlast.kernel import find_rooms
from outlast.ui.operation import openapi

HERE: Final = Path(__file__).resolve().parent
BEGIN: Final = "<!-- made by make.py: begin -->"
END: Final = "<!-- made by make.py: end -->"


def pages() -> dict[Path, str]:
    """Both pages as they should be."""
    made = {"cli.md": "\n".join(commands(tree(), "outlast")), "api.md": "\n".join(operations())}
    result = {}
    for name, content in made.items():
        before, _, rest = (HERE / name).read_text(encoding="utf-8").partition(BEGIN)
        result[HERE / name] = f"{before}{BEGIN}\n\n{content}\n{END}{rest.partition(END)[2]}"
    return result


def commands(command: Any, path: str) -> Iterator[str]:
    """The help of a command and of all below it."""
    context = command.make_context(path, [], resilient_parsing=True)
    real = context.command
    if hasattr(real, "commands"):
        if real.invoke_without_command:
            yield from description(real, context, path)
        for name in real.list_commands(context):
            yield from commands(real.get_command(context, name), f"{path} {name}")
        return
    yield from description(real, context, path)


def description(real: Any, context: Any, path: str) -> Iterator[str]:
    """The help of one command."""
    arguments = [one for one in real.params if one.param_type_name == "argument"]
    options = [one for one in real.params if one.param_type_name == "option" and "--help" not in one.opts]
    shown = [piece.strip("{}") for one in arguments for piece in one.get_usage_pieces(context)]
    yield f"### {' '.join([path, *shown])}\n"
    yield f"{' '.join((real.help or '').split())}\n"
    told = [f"- `{shape}`: {one.help}" for one, shape in zip(arguments, shown, strict=True) if one.help]
    for option in options:
        names, text = option.get_help_record(context)
        told.append(f"- `{' '.join(names.split())}`: {' '.join(text.split())}")
    if told:
        yield "\n".join(told) + "\n"


def operations() -> Iterator[str]:
    """Each operation with its parameters and its result."""
    found = operations_of(find_rooms())
    document = openapi(found.values())
    for name in sorted(found):
        operation = found[name]
        post = document["paths"][operation.path]["post"]
        yield f"### {name}\n"
        way = "POST" if operation.unsafe else "GET or POST"
        locked = ", also while locked" if operation.while_locked else ""
        yield f"{operation.summary.rstrip('.')}. {way} `{operation.path}`{locked}.\n"
        request = _named(post["requestBody"]["content"]["application/json"]["schema"], document)
        if request["properties"]:
            yield "Takes:\n\n" + "\n".join(_fields(request)) + "\n"
        schema = post["responses"]["200"]["content"]["application/json"]["schema"]
        result = _named(schema.get("items", schema), document)
        if result["properties"]:
            yield f"Gives{' a list of' if 'items' in schema else ''}:\n\n" + "\n".join(_fields(result)) + "\n"


def _named(schema: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def _fields(schema: Mapping[str, Any]) -> Iterator[str]:
    for name, field in schema["properties"].items():
        default = f", {field['default']!r} unless given" if "default" in field and field["default"] is not None else ""
        text = f". {field['description']}" if "description" in field and "$ref" not in field else ""
        yield f"- `{name}`: {_type(field)}{default}{text}"


def _type(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"`{one}`" for one in schema["enum"])
    if "$ref" in schema:
        return f"object {schema['$ref'].rpartition('/')[2]}"
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    return str(schema["type"])


if __name__ == "__main__":
    for page, content in pages().items():
        page.write_text(content, encoding="utf-8")
    sys.exit(0)
