"""Nothing of one person is shown to another on the same node, and nothing of one does anything to what is another's.

Every page, form and operation that there is gets asked, by the tables of routes and operations. Both people have
something of every kind that an address can name: a route with a new kind of name in it fails here until they have that.
"""

from __future__ import annotations

import io
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin
from urllib.parse import unquote, urlencode

import msgspec
import pytest
from PIL import Image
from starlette.routing import Route

import outlast
from outlast.address import Target
from outlast.edges import pages
from outlast.edges.api import operations_of
from outlast.edges.stick import service as sticks
from outlast.edges.web import room_routes
from outlast.errors import OutlastError
from outlast.kernel import Home, Node, Person, find_rooms, id_text, space_text
from outlast.rooms.carry import files, groups, places, service, uploads
from outlast.rooms.reach import service as reach
from outlast.rooms.reach import uplinks
from outlast.rooms.reach.proto.bridge import WebBridge
from outlast.rooms.reach.proto.links import write_bridge
from outlast.rooms.reach.view import Want, want_row
from outlast.rooms.watch import asks
from outlast.rooms.watch import service as watch
from outlast.ui.operation import Call, Operation
from tests.seizure.needles import Needles, of_bytes, of_person, of_text
from tests.unit.edges.served import Browser, Served, served

PASSPHRASES: Final = {"Anna": "heron, river, stone", "Boris": "lamp, winter, ferry"}
SOURCE: Final = Path(outlast.__file__).parent
ASKED: Final = re.compile(r'query(?:_params)?(?:\.get\(|\[)"(\w+)"')
SENT: Final = re.compile(r'(?:form|fields\(request\)\))\.get\("(\w+)"')
TYPED: Final = frozenset(
    (
        "name",
        "text",
        "label",
        "link",
        "targets",
        "domestic",
        "abroad",
        "direct",
        "user",
        "ssid",
        "address",
        "at",
        "site",
    )
)
"""Fields for what somebody types, and not for what names something that is there."""
SECRET: Final = frozenset(("csrf", "passphrase", "again", "old", "password", "word", "words", "token"))


@dataclass
class Belongings:
    """What one has alone: what must not be found elsewhere, and what names it in addresses, forms and questions."""

    needles: Needles
    words: Sequence[str]
    holes: Mapping[str, Sequence[str]]
    known: Sequence[str]


async def settled(web: Any, person: Person, friend: str, word: str, country: str, folder: Path) -> Belongings:
    """Let somebody have something of every kind, called so that it can be found; ``friend`` is a contact's link."""
    node: Node = person.node
    peer = (await person.add_contact(friend)).identity
    letter = await service.send(node, person, peer, f"{word}letter")
    channel = await service.create_channel(node, person, f"{word}news")
    post = await service.post(node, person, channel.space, f"{word}post")
    group = await groups.create(node, person, f"{word}circle")
    line = await groups.post(node, person, group.space, f"{word}line")
    await places.keep_draft(node, person, peer, f"{word}draft")

    drawn = io.BytesIO()
    Image.new("RGB", (64, 48), "teal").save(drawn, "JPEG")
    picture = await files.send(
        node, person, peer, io.BytesIO(drawn.getvalue()), name=f"{word}shot.jpg", type="image/jpeg",
        preview=drawn.getvalue(),
    )  # fmt: skip
    sound = await files.send(
        node, person, group.space, io.BytesIO(b"OggS" + bytes(60)), name=f"{word}voice.ogg", type="audio/ogg"
    )
    upload = await uploads.begin(node, person, peer, f"{word}film.mp4", 1 << 20, "a mark")

    at = Target("bridge.example", 443)
    [bridge], _ = await reach.add_bridges(
        node, person, write_bridge(WebBridge(at, "www.example.org", secrets.token_bytes(32), label=f"{word}bridge"))
    )
    asked = secrets.token_bytes(16)
    await reach.remember(node, person, [want_row(Want(asked, peer, False, b"", None, False, False, node.now_ms()))])
    await uplinks.lend(node, person, peer, day_bytes=1_000_000)

    now_s = node.now_ms() // 1_800_000 * 1800
    rows = [f"Time (UTC),Google (Search),{word}signal"]
    for number in range(-6 * 48, 0):
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now_s + number * 1800))
        rows.append(f"{when},{3 if number > -12 else 90 + number % 4},{40 + number % 9}")
    await watch.set_place(node, person, country, 6697)
    await watch.set_controls(node, person, [f"{word}control.example"], [])
    watched = await watch.found_channel(node, person, f"{word}watch")
    await watch.read_series(node, person, "\n".join(rows).encode(), "ioda.csv", country)
    wish = await asks.ask(node, person, peer, f"https://{word}site.example/")
    cut = watch.outages(node, person)[0]

    stick = folder / f"{word}stick"
    stick.mkdir()
    await sticks.add_folder(person, str(stick))
    phone = web.sessions.open(secrets.token_urlsafe(32), "lan", person.key, f"{word}phone", node.now_ms())
    await web.keep(phone)
    invitation = web.invitations.make(person.key, node.now_ms())

    named = {
        "contact": peer, "letter": letter, "post": post, "line": line, "picture": picture, "sound": sound,
        "upload": upload.file.id, "channel": channel.space, "group": group.space, "watched channel": watched.space,
        "request": asked, "wish": wish, "phone": phone.digest, "device": person.device,
    }  # fmt: skip
    parts = ("friend", "letter", "news", "post", "circle", "line", "draft", "shot", "voice", "film", "bridge", "signal")
    words = [word + part for part in (*parts, "control", "watch", "site", "stick", "phone")]
    found = await of_person(person) | of_bytes("a bridge", bytes.fromhex(bridge.id))
    for text in words:
        found |= of_text(f"what only {person.name} knows: {text}", text)
    for what, data in named.items():
        found |= of_bytes(f"{person.name}'s {what}", data)
    ids = [id_text(peer), space_text(channel.space), space_text(group.space), bridge.id]
    return Belongings(
        found,
        words,
        {
            "id": ids,
            "where": ["with", "groups"],
            "file": [picture.hex(), sound.hex()],
            "upload": [upload.file.id.hex()],
            "place": [peer.hex(), channel.space.hex(), group.space.hex()],
            "code": [country],
            "entity": [country],
            "start": [str(cut.start_s)],
            "token": [invitation.token],
            "topic": list(pages.HELP),
        },
        [*(data.hex() for data in named.values()), *ids, person.key, str(stick), f"{word}friend", f"{word}letter"],
    )


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A node on which Anna and Boris live, both unlocked."""
    home = tmp_path_factory.mktemp("shared") / "home"
    with served(home, name="Anna", passphrase=PASSPHRASES["Anna"], rooms=find_rooms()) as node:
        node.run(node.node.unlock(PASSPHRASES["Anna"]))
        node.run(node.node.add_person("Boris", PASSPHRASES["Boris"]))
        yield node


@pytest.fixture(scope="module")
def both(node: Served, tmp_path_factory: pytest.TempPathFactory) -> tuple[Belongings, Belongings]:
    """What Anna has, and what Boris has."""

    async def live(name: str, word: str, country: str) -> Belongings:
        folder = tmp_path_factory.mktemp(word)
        home = Home(folder / "friend")
        await Node.create(home, f"{word}friend", passphrase=None, rooms=())
        async with await Node.open(home, rooms=(), dial=False) as other:
            (friend,) = other.people.values()
            link = await friend.link()
        return await settled(node.serving.web, person(node, name), link, word, country, folder)

    return node.run(live("Anna", "ocelot", "DE")), node.run(live("Boris", "zephyr", "BY"))


def person(node: Served, name: str) -> Person:
    return next(one for one in node.node.people.values() if one.name == name)


def came_in(node: Served, browser: Browser, name: str) -> None:
    assert browser.post("/enter", data={"passphrase": PASSPHRASES[name]}).status_code == 303


def found_in(needles: Needles, data: bytes, asked: str) -> set[str]:
    """What of somebody stands in an answer, other than the very text that was asked by."""
    return {
        what for needle, what in needles.items() if needle in data and needle.decode("utf-8", "replace") not in asked
    }


def routes(node: Served, method: str) -> list[Route]:
    """What can be asked for by that method. Files of the program, and of the releases it hands on, are for all."""
    found = [*pages.routes(), *room_routes(node.serving.web.site)]
    files = re.compile(r"/static/|/get/")
    return [one for one in found if method in (one.methods or ()) and not files.match(one.path)]


def filled(path: str, belongings: Belongings) -> list[str]:
    """The addresses of a route, with what somebody has in its holes; a KeyError is a new kind of hole."""
    holes = re.findall(r"{(\w+)(?::\w+)?}", path)
    plain = re.sub(r"{(\w+):\w+}", r"{\1}", path)
    values = product(*(belongings.holes[hole] for hole in holes))
    return [plain.format(**dict(zip(holes, one, strict=True))) for one in values]


def fitting(browser: Browser, path: str, belongings: Belongings) -> list[str]:
    """Those of them that the one who asks can use: an ID is of a person, a channel, a group or a bridge."""
    before, hole, _ = path.partition("{id}")
    found = filled(path, belongings)
    if not hole:
        return found
    places_ = set(filled(before + hole, belongings))
    theirs = tuple(one for one in places_ if browser.get(one).status_code == 200)
    return [one for one in found if one.startswith(theirs)]


def names_in_source(pattern: re.Pattern[str]) -> list[str]:
    """The names of all fields of forms, or of questions in addresses."""
    return sorted({name for file in SOURCE.rglob("*.py") for name in pattern.findall(file.read_text())})


# ---- pages ----


def test_no_page_shows_anybody_anything_of_another(node: Served, both: tuple[Belongings, Belongings]) -> None:
    hers, his = both
    names = names_in_source(ASKED)
    assert {"at", "reply", "to", "back"} <= set(names)
    unseen, unreached = {word for word in his.words if not word.endswith("site")}, set[str]()
    with node.stranger() as anna, node.stranger() as boris:
        came_in(node, anna, "Anna")
        came_in(node, boris, "Boris")

        def look(path: str) -> None:
            answer = anna.get(path)
            body = answer.content + str(answer.headers).encode()
            assert not found_in(his.needles, body, unquote(path)), (path, answer.status_code)

        for route in routes(node, "GET"):
            if route.path == "/events":
                continue
            own = []
            for path in filled(route.path, his):
                own.append(boris.get(path))
                look(path)  # also where a page is kept that was made just now
            if not any(answer.status_code in (200, 303) for answer in own):
                unreached.add(route.path)
            unseen -= {word for word in unseen for answer in own if word.encode() in answer.content}
            for path in fitting(anna, route.path, hers):
                look(path)
                for value in his.known if "{" in route.path else his.known[-6::2]:
                    look(path + "?" + urlencode(dict.fromkeys(names, value)))
    assert unreached == {"/prove", "/get", "/trust/outlast.crt", "/watch/go"}, "Boris has nothing shown there"
    assert unseen == set(), "Boris himself sees all that he has"


# ---- forms ----

NOT_SENT: Final = {
    "/enter": "lets in by a secret", "/unlock": "lets in by a secret", "/prove": "lets in by a secret",
    "/leave": "ends the session", "/settings/lock": "closes the own vault", "/settings/wipe": "is for all",
    "/household/remove": "destroys the own vault", "/settings/lan": "is for all", "/trust": "is for all",
    "/share": "is for all", "/hotspot/start": "is for all", "/hotspot/stop": "is for all",
    "/reach/switch": "begins to look for a way out", "/reach/settings/test": "asks a website",
    "/watch/link": "asks addresses elsewhere",
}  # fmt: skip


def test_no_form_of_one_acts_on_what_is_another_s(node: Served, both: tuple[Belongings, Belongings]) -> None:
    hers, his = both
    names = [name for name in names_in_source(SENT) if name not in SECRET]
    assert {"device", "phone", "bridge", "contact", "request", "letter", "stick"} <= {*names}
    before = node.run(all_that_boris_has(node))
    sent = 0
    with node.stranger() as anna:
        came_in(node, anna, "Anna")
        token = anna.token()

        def send(path: str, value: str) -> None:
            form = {name: "a few words" if name in TYPED else value for name in names}
            answer = anna.post(path, data={"csrf": token, **form})
            body = answer.content + str(answer.headers).encode()
            assert answer.status_code < 500, path
            assert not found_in(his.needles, body, f"{path} {value}"), (path, value)

        for route in routes(node, "POST"):
            if route.path in NOT_SENT:
                continue
            for path in filled(route.path, his):
                send(path, his.known[0])
                sent += 1
            for path in fitting(anna, route.path, hers):
                for value in his.known:
                    send(path, value)
                    sent += 1
    assert sent > 1000, sent
    assert node.run(all_that_boris_has(node)) == before


async def all_that_boris_has(node: Served) -> Any:
    """Every row of his vault, and the code of the phone that he is about to let in."""
    boris, web = person(node, "Boris"), node.serving.web
    tables = [str(row[0]) for row in boris.query("SELECT name FROM sqlite_master WHERE type = 'table'")]
    rows = {table: boris.query(f'SELECT * FROM "{table}" ORDER BY 1') for table in tables}
    shown = web.invitations.of(boris.key, node.node.now_ms())
    return rows, shown and shown.token


# ---- operations ----

NOT_ASKED: Final = {
    "unlock": "opens by a secret", "lock": "is for all", "wipe": "is for all", "rebuild": "is for all",
    "backup": "takes a secret", "trust.set": "is for all", "person.list": "is for whoever runs the node",
    "person.add": "is for whoever runs the node", "person.lock": "is for whoever runs the node",
    "person.remove": "is for whoever runs the node", "carry.follow": "is for whoever knows a channel's id",
    "watch.follow": "is for whoever knows a channel's id", "reach.switch": "begins to look for a way out",
    "watch.link": "asks addresses elsewhere",
}  # fmt: skip


def value_of(type_: Any, value: str) -> Any:
    """A value for a parameter of an operation that names what is meant, and the plainest for any other."""
    options = get_args(type_) if isinstance(type_, UnionType) or get_origin(type_) is Union else (type_,)
    first = options[0]
    if first is str:
        return value
    if get_origin(first) in (list, tuple):
        return [value]
    if get_origin(first) is Literal:
        return get_args(first)[0]
    return {bool: False, int: 1}[first]


def test_no_operation_of_one_tells_or_does_anything_to_another(
    node: Served, both: tuple[Belongings, Belongings], tmp_path: Path
) -> None:
    _hers, his = both
    operations = operations_of(find_rooms())
    assert set(operations) >= set(NOT_ASKED)
    fixed, answered = {"file": str(tmp_path / "file"), "country": his.holes["code"][0]}, set[str]()
    unseen = {word for word in his.words if not word.endswith(("draft", "film", "control", "stick", "signal"))}

    async def ask(operation: Operation[Any, Any], value: str | None, whose: Person) -> bytes:
        params = {
            field.encode_name: fixed[field.name] if field.name in fixed
            else value_of(field.type, "a few words" if field.name in TYPED | SECRET else value or "")
            for field in msgspec.structs.fields(operation.params) if value is not None or field.required
        }  # fmt: skip
        try:
            answer = await operation.answer(Call(node.node, operation.read(params), whose=whose.key))
        except OutlastError as error:
            return str(error).encode()
        answered.add(operation.name)
        return msgspec.json.encode(answer) + str(answer).encode()

    async def all_of_them() -> None:
        anna, boris = person(node, "Anna"), person(node, "Boris")
        before = await all_that_boris_has(node)
        for operation in operations.values():
            if operation.name in NOT_ASKED:
                continue
            for value in his.known:
                told = await ask(operation, value, anna)
                assert not found_in(his.needles, told, value), (operation.name, value)
        assert await all_that_boris_has(node) == before
        answered.clear()
        for operation in operations.values():
            if not operation.unsafe and operation.name not in NOT_ASKED:
                for value in (None, *his.known):
                    told = await ask(operation, value, boris)
                    unseen.difference_update([word for word in unseen if word.encode() in told])

    node.run(all_of_them())
    assert answered == {one.name for one in operations.values() if not one.unsafe} - set(NOT_ASKED)
    assert unseen == set(), "Boris himself is told all that he has"
