"""Operations: parameters are checked, names are unique, and the document tells the truth."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from outlast.errors import LockedError, NotFoundError, UsageError
from outlast.ui.operation import Call, Nothing, Operation, Problem, collect, openapi, pick


class Wish(msgspec.Struct, frozen=True):
    """What is wished for."""

    thing: str
    count: int = 1


class Granted(msgspec.Struct, frozen=True):
    """What came of it."""

    things: list[str]
    at_ms: int | None = None


async def grant(call: Call[Wish]) -> Granted:
    return Granted([call.params.thing] * call.params.count)


async def nothing(call: Call[Nothing]) -> Nothing:
    return Nothing()


GRANT = Operation("wish.grant", Wish, Granted, grant, "Grant a wish", unsafe=True)
COUNT = Operation("wish.count", Wish, list[Granted], grant, "Count wishes")
IDLE = Operation("idle", Nothing, Nothing, nothing, "Do nothing")


def node(*people: str) -> Any:
    return SimpleNamespace(people={name: name for name in people})


def test_an_operation_answers_in_plain_json_values() -> None:
    call = Call(node(), GRANT.read({"thing": "tea", "count": 2}))
    assert asyncio.run(GRANT.answer(call)) == {"things": ["tea", "tea"], "at_ms": None}


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ({}, "thing"),
        ({"thing": 3}, "thing"),
        ({"thing": "tea", "sugar": 1}, "sugar"),
        ({"thing": "t", "count": "2"}, "count"),
    ],
)
def test_wrong_parameters_are_named_in_one_line(params: dict[str, Any], names: str) -> None:
    with pytest.raises(UsageError, match=names) as caught:
        GRANT.read(params)
    assert "\n" not in str(caught.value)


def test_a_query_string_may_write_numbers_as_text() -> None:
    assert COUNT.read({"thing": "tea", "count": "2"}, lax=True) == Wish("tea", 2)


def test_a_call_is_made_by_the_one_person_whose_vault_is_open() -> None:
    assert Call(node("ada"), Nothing()).person == "ada"
    with pytest.raises(LockedError):
        _ = Call(node(), Nothing()).person
    with pytest.raises(UsageError):
        _ = Call(node("ada", "bela"), Nothing()).person


def test_a_name_is_given_once() -> None:
    twin = Operation("idle", Nothing, Nothing, nothing, "Another")
    assert set(collect([GRANT, IDLE], [])) == {"wish.grant", "idle"}
    with pytest.raises(UsageError, match="idle"):
        collect([IDLE, twin], [])


def test_rooms_bring_their_operations_by_name_of_module() -> None:
    room: Any = SimpleNamespace(api="outlast.ui.operation:no_such_list")
    with pytest.raises(AttributeError):
        collect([IDLE], [room])
    assert set(collect([IDLE], [SimpleNamespace(api="")])) == {"idle"}  # type: ignore[list-item]


def test_an_unknown_operation_is_not_found() -> None:
    with pytest.raises(NotFoundError, match="no_such"):
        pick(collect([IDLE], []), "no_such")


def test_a_problem_is_one_line_with_its_exit_code() -> None:
    assert Problem.of(LockedError("the node\n is locked")) == Problem("the node is locked", 3)


def test_unsafe_operations_have_no_get_in_the_document() -> None:
    paths = openapi([GRANT, COUNT, IDLE])["paths"]
    assert set(paths) == {"/api/v1/wish/grant", "/api/v1/wish/count", "/api/v1/idle"}
    assert set(paths["/api/v1/wish/grant"]) == {"post"}
    assert set(paths["/api/v1/wish/count"]) == {"get", "post"}


def test_the_document_lists_each_query_parameter_and_whether_it_is_needed() -> None:
    get = openapi([COUNT])["paths"]["/api/v1/wish/count"]["get"]
    asked = {(one["name"], one["required"]) for one in get["parameters"] if one["in"] == "query"}
    assert asked == {("thing", True), ("count", False)}


def test_every_reference_in_the_document_leads_somewhere() -> None:
    document = openapi([GRANT, COUNT, IDLE])

    def references(part: Any) -> list[str]:
        if isinstance(part, dict):
            own = [part["$ref"]] if "$ref" in part else []
            return own + [one for value in part.values() for one in references(value)]
        return [one for value in part for one in references(value)] if isinstance(part, list) else []

    found = references(document)
    assert found
    for reference in found:
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]
