"""Operations: what can be asked of a node, the same for the command line, the local API and its document.

An operation has a dotted name (``contact.add``), a frozen msgspec Struct of parameters, a result type and a coroutine.
The node's own stand in ``edges/operations.py``; a room lists its in ``Room.api`` (``"module:OPERATIONS"``), imported
when an edge first needs it. Identities, channels and letters cross this border as text, times as ``..._ms``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import msgspec

from outlast import __version__
from outlast.errors import LockedError, NotFoundError, OutlastError, UsageError

if TYPE_CHECKING:
    from outlast.kernel import Node, Person, Room

PREFIX: Final = "/api/v1/"
PERSON_HEADER: Final = "Outlast-Person"
"""Names who asks, percent-encoded, where several vaults are open."""
KEY_MIN_CHARS: Final = 4

P = TypeVar("P", bound=msgspec.Struct)
R = TypeVar("R")

Progress = Callable[[int, int | None], None]
"""Told of long work: bytes or items done, and how many there are, None while that is unknown."""


def silent(_done: int, _total: int | None) -> None:
    """The progress that nobody watches."""


@dataclass(frozen=True, slots=True)
class Call(Generic[P]):
    """One request: the node it is made of, its parameters, who hears of its progress, and for whom it is made.

    ``whose`` is a person's name or the beginning of their key, or empty where one vault alone is open.
    """

    node: Node
    params: P
    progress: Progress = silent
    whose: str = ""

    def who(self) -> Person | None:
        """The person who asks, or None when nobody is named and not just one vault is open; raises as ``person``."""
        return self.person if self.whose or len(self.node.people) == 1 else None

    @property
    def person(self) -> Person:
        """The person who asks; raises LockedError while their vault is closed, UsageError when it may be several."""
        people = list(self.node.people.values())
        if self.whose:
            people = [one for one in people if is_meant(one, self.whose)]
            if not people:
                raise LockedError(f"no vault of {self.whose[:64]!r} is open: open it by `outlast unlock`")
        if not people:
            raise LockedError("the node is locked: unlock it with `outlast unlock`, or on its page")
        if len(people) > 1:
            raise UsageError("several people have their vaults open here: say who asks by --person NAME")
        return people[0]


def is_meant(person: Person, text: str) -> bool:
    """Whether a person of this node is called ``text``, or their key begins so."""
    return text.casefold() == person.name.casefold() or (len(text) >= KEY_MIN_CHARS and person.key.startswith(text))


class Nothing(msgspec.Struct, frozen=True):
    """No parameters, or no more to say than that it was done."""


class Problem(msgspec.Struct, frozen=True):
    """Why a request was not carried out: one line for a person, and the exit code of the command line."""

    error: str
    code: int

    @classmethod
    def of(cls, error: OutlastError) -> Problem:
        """The problem that an error of this program states."""
        return cls(" ".join(str(error).split()), error.exit_code)


@dataclass(frozen=True, slots=True)
class Operation(Generic[P, R]):
    """One thing that can be asked.

    ``unsafe`` ones change something and are never carried out by a GET. Those that answer ``while_locked`` need no open
    vault: the command line asks for no passphrase first.
    """

    name: str
    params: type[P]
    result: Any  # the type of what `run` returns, as msgspec reads it
    run: Callable[[Call[P]], Awaitable[R]]
    summary: str
    unsafe: bool = False
    while_locked: bool = False

    @property
    def path(self) -> str:
        """Where the local API has it: ``contact.add`` at ``/api/v1/contact/add``."""
        return PREFIX + self.name.replace(".", "/")

    def read(self, params: Mapping[str, Any], *, lax: bool = False) -> P:
        """The parameters of a request; ``lax`` reads numbers from text, as a query string has them.

        Raises UsageError that names the wrong one.
        """
        unknown = params.keys() - {field.encode_name for field in msgspec.structs.fields(self.params)}
        if unknown:
            raise UsageError(f"{self.name} has no parameter {min(unknown)!r}")
        try:
            return msgspec.convert(params, self.params, strict=not lax)
        except msgspec.ValidationError as error:
            raise UsageError(f"{self.name}: {error}") from None

    async def answer(self, call: Call[P]) -> Any:
        """What the operation returns, as JSON holds it: dicts, lists, text, numbers."""
        return msgspec.to_builtins(await self.run(call))


Operations = Mapping[str, Operation[Any, Any]]


def load(reference: str) -> Any:
    """What a room names as ``"module:attribute"``."""
    module, _, attribute = reference.partition(":")
    return getattr(import_module(module), attribute)


def collect(own: Iterable[Operation[Any, Any]], rooms: Iterable[Room]) -> dict[str, Operation[Any, Any]]:
    """All operations by name, the program's own first; raises UsageError when two have one name."""
    found: dict[str, Operation[Any, Any]] = {}
    listed: list[Iterable[Operation[Any, Any]]] = [own]
    listed.extend(load(room.api) for room in rooms if room.api)
    for operations in listed:
        for operation in operations:
            if found.setdefault(operation.name, operation) is not operation:
                raise UsageError(f"two rooms offer the operation {operation.name!r}: remove one of them")
    return found


def pick(operations: Operations, name: str) -> Operation[Any, Any]:
    """The operation of that name; raises NotFoundError."""
    try:
        return operations[name]
    except KeyError:
        raise NotFoundError(f"this node has no operation {name!r}: `outlast --help` lists what there is") from None


def openapi(operations: Iterable[Operation[Any, Any]]) -> dict[str, Any]:
    """The document of the local API: OpenAPI 3.1, with a schema for each parameter and result."""
    listed = sorted(operations, key=lambda operation: operation.name)
    types = [Problem]
    types += [each for operation in listed for each in (operation.params, operation.result)]
    (problem, *schemas), components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    failure = {"description": "Not carried out; nothing was changed.", "content": _json(problem)}
    paths: dict[str, Any] = {}
    for number, operation in enumerate(listed):
        params, result = schemas[2 * number], schemas[2 * number + 1]
        shared = {
            "summary": operation.summary,
            "tags": [operation.name.partition(".")[0]],
            "responses": {"200": {"description": "Done.", "content": _json(result)}, "default": failure},
            "parameters": [_WHOSE],
        }
        post = {**shared, "operationId": operation.name, "requestBody": {"content": _json(params)}}
        paths[operation.path] = {"post": post}
        if not operation.unsafe:
            fields = components[params["$ref"].rpartition("/")[2]]
            get = {**shared, "operationId": f"{operation.name}.get", "parameters": [_WHOSE, *_query(fields)]}
            paths[operation.path]["get"] = get
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Outlast's local API",
            "version": __version__,
            "summary": "What can be asked of a node by its owner, over the Unix socket api.sock in its home.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": components},
    }


_WHOSE: Final = {
    "name": PERSON_HEADER,
    "in": "header",
    "required": False,
    "description": "Who asks, where several vaults are open: a name (percent-encoded), or the beginning of a key.",
    "schema": {"type": "string"},
}


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _query(schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    required: Sequence[str] = schema.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in required, "schema": field}
        for name, field in schema.get("properties", {}).items()
    ]
