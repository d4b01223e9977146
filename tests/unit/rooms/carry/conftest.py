"""Tests of carry that are coroutines run in a loop of their own; those of pages have two nodes."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator

import pytest

from outlast.rooms.carry import ROOM
from tests.unit.edges.served import Browser, Served, served


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine function."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    asyncio.run(pyfuncitem.obj(**arguments))
    return True


@pytest.fixture(scope="module")
def ann(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Ann's node and its pages."""
    with served(tmp_path_factory.mktemp("ann"), name="Ann", rooms=[ROOM]) as node:
        yield node


@pytest.fixture(scope="module")
def ben(tmp_path_factory: pytest.TempPathFactory, ann: Served) -> Iterator[Served]:
    """Ben's node; he and Ann have each other's links."""
    with served(tmp_path_factory.mktemp("ben"), name="Ben <b>", rooms=[ROOM]) as node:
        node.run(node.person.add_contact(ann.run(ann.person.link())))
        ann.run(ann.person.add_contact(node.run(node.person.link())))
        yield node


@pytest.fixture
def page(ann: Served) -> Iterator[Browser]:
    """Ann's browser."""
    with ann.owner() as browser:
        yield browser
