"""A room's pages stand behind the same gates as the node's own, under the room's own name."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from outlast.edges.gate import Access, Gate
from outlast.edges.web import room_routes
from outlast.errors import UsageError
from outlast.kernel import Room, find_rooms
from outlast.ui.page import Site
from tests.unit.edges.outline import Outline
from tests.unit.edges.served import Served, served

MODULE = """
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from outlast.ui.page import Card
async def show(request):
    return PlainTextResponse(request.state.person.name + " at " + request.state.door)
def routes():
    return [Route("{prefix}show", show, methods=["GET", "POST"])]
def card(request):
    return Card("/toy/show", "Toy", "to play with", 3)
"""


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "toyweb").mkdir()
    (tmp_path / "toyweb" / "__init__.py").touch()
    sys.path.insert(0, str(tmp_path))
    yield tmp_path / "toyweb" / "web.py"
    sys.path.remove(str(tmp_path))
    for name in ("toyweb", "toyweb.web"):
        sys.modules.pop(name, None)


ROOM = Room("toy", 1, web="toyweb.web:routes")


def test_a_room_brings_pages_and_a_card(toy: Path, tmp_path: Path) -> None:
    toy.write_text(MODULE.replace("{prefix}", "/toy/"))
    with served(tmp_path / "home", rooms=(ROOM,)) as node, node.owner() as owner, node.stranger() as stranger:
        assert owner.get("/toy/show").text == "Ala at localhost"
        home = owner.get("/").text
        assert 'href="/toy/show"' in home
        assert '<span class="badge">3</span>' in home
        assert owner.post("/toy/show").status_code == 403
        assert owner.submit("/toy/show").status_code == 200
        assert stranger.get("/toy/show").status_code == 401
        with node.phone() as phone:
            assert phone.get("/toy/show").text == "Ala at lan"


ALIKE = """
from starlette.routing import Route
from outlast.errors import UsageError
from outlast.ui.page import alike, render
made = []
@alike
async def show(request):
    made.append(request.url.query)
    if request.url.query == "wrong":
        raise UsageError("nothing can be made of this")
    return render(request, "toy/show.html")
def routes():
    return [Route("/toy/show", show, methods=["GET"])]
"""
SHOWS_WHOM = '{% extends "page.html" %}{% block main %}<p>{{ person.name }}</p>{{ csrf }}{% endblock %}'


def test_a_page_that_is_alike_for_all_is_made_once_for_each_change_and_bears_each_browser_s_own_token(
    toy: Path, tmp_path: Path
) -> None:
    toy.write_text(ALIKE)
    (toy.parent / "templates").mkdir()
    (toy.parent / "templates" / "show.html").write_text(SHOWS_WHOM)
    with served(tmp_path / "home", rooms=(ROOM,)) as node, node.owner() as owner:
        made: list[str] = import_module("toyweb.web").made
        with node.phone("one") as one, node.phone("two") as two:
            tokens = {one.token(), two.token(), owner.token()}
            assert len(tokens) == 3

            def look() -> None:
                made.clear()
                # What the node itself changes meanwhile is a reason to make it anew.
                for browser, token in ((one, one.token()), (two, two.token())):
                    page = browser.get("/toy/show", headers={"x-fragment": "1"}).text
                    assert re.findall(r'name="csrf" value="([^"]+)"', page) == [token]

            for _ in range(20):
                look()
                if len(made) == 1:
                    break
            assert len(made) == 1, "the second phone was given what was made for the first"
            node.call(node.node.touch)
            look()
            assert made, "after a change it is made anew"
            made.clear()
            assert "<p>Ala</p>" in owner.get("/toy/show?x=1").text
            assert "<p>Ala</p>" in one.get("/toy/show?x=2").text
            assert made == ["x=1", "x=2"], "an address of its own is a page of its own"
            wrong = one.get("/toy/show?wrong")
            assert wrong.status_code == 400
            assert node.serving.web.site.stand_in not in wrong.text
            node.run(node.node.lock())
            for browser in (one, owner):
                assert "<p>Ala</p>" not in browser.get("/toy/show?x=1").text
            assert node.call(lambda: dict(node.serving.web.site.pages)) == {}, "nothing stays of who is locked"


@pytest.mark.parametrize("prefix", ["/", "/people/", "/carry/", "/toyshop/"])
def test_a_room_cannot_take_the_place_of_another_s_page(toy: Path, prefix: str) -> None:
    toy.write_text(MODULE.replace("{prefix}", prefix))
    with pytest.raises(UsageError, match="outside of /toy/"):
        room_routes(Site({"toy": ROOM}))


INSTALLED = [
    (route.path, method)
    for route in room_routes(Site({room.name: room for room in find_rooms()}))
    for method in sorted(route.methods or ())
    if method != "HEAD" and isinstance(route.app, Gate) and route.app.access is Access.PERSON
]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("home") / "a", rooms=None) as running:
        running.run(running.node.wait(2))  # opened, unlocked, tidied up: from now on nothing changes by itself
        yield running


@pytest.mark.parametrize(("path", "method"), INSTALLED)
def test_an_installed_room_s_page_is_closed_to_strangers_and_to_foreign_forms(
    node: Served, path: str, method: str
) -> None:
    path = re.sub(r"\{\w+\}", "x", path)
    with node.stranger() as stranger, node.owner() as owner:
        before = node.node.revision
        assert stranger.request(method, path, data={} if method == "POST" else None).status_code == 401
        if method == "POST":
            assert owner.post(path, data={"text": "hello"}).status_code == 403
            foreign = {"origin": "http://evil.example"}
            assert owner.post(path, data={"csrf": owner.token()}, headers=foreign).status_code == 403
        else:
            assert owner.get(path).status_code in (200, 400, 404)
        assert node.node.revision == before


def test_carry_s_pages_have_one_heading_and_named_controls(tmp_path: Path, node: Served) -> None:
    from outlast.rooms.carry import service

    with served(tmp_path / "b", name="Boris", rooms=None) as other, node.owner() as owner:
        contact = node.run(node.person.add_contact(other.run(other.person.link())))
        node.run(service.send(node.node, node.person, contact.identity, "hello"))
        channel = node.run(service.create_channel(node.node, node.person, "News"))
        node.run(service.post(node.node, node.person, channel.space, "first"))
        places = ["/", "/carry/", "/carry/channels", "/carry/search", f"/carry/with/{contact.id}", "/stick"]
        for path in [*places, f"/carry/channels/{channel.id}", f"/people/{contact.id}"]:
            page = owner.get(path)
            assert page.status_code == 200
            assert Outline(page.text).faults() == [], path
            title = re.findall(r"<title>(.*?)</title>", page.text)[0]
            assert not {"hello", "News", "Boris", "first"} & set(title.split())
        assert "News" in owner.get("/stick").text
        saved = owner.submit("/stick/write", space=channel.id)
        assert saved.status_code == 200
        assert b"first" in saved.content
