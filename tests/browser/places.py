"""Two nodes with something on every page, and the addresses of all their pages: for tests and for pictures."""

from __future__ import annotations

import io
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from PIL import Image

from outlast.address import Target
from outlast.edges import pages
from outlast.edges.stick import service as sticks
from outlast.edges.web import room_routes
from outlast.rooms.carry import files, groups, service
from outlast.rooms.reach import service as reach
from outlast.rooms.reach import uplinks
from outlast.rooms.reach.entries import Uplink
from outlast.rooms.reach.proto.bridge import WebBridge
from outlast.rooms.reach.proto.links import write_bridge
from outlast.rooms.reach.serving import Served as OwnBridge
from outlast.rooms.reach.view import Borrowed, Want, borrowed_row, bridge_row, want_row
from outlast.rooms.reach.web import routes as reach_routes
from outlast.rooms.watch import service as watch
from outlast.rooms.watch.view import Measured
from outlast.rooms.watch.web import routes as watch_routes
from tests.unit.edges.served import Served
from tests.unit.edges.spread.test_get import hand_on

NAME = "Somebody-with-a-name-that-has-no-place-to-break"
STICK = "A-STICK"
NO_PAGES = {
    "/carry/files/{file}/picture",
    "/carry/files/{file}/play",
    "/carry/files/{file}/save",
    "/carry/files/{file}/small",
    "/carry/waiting/{upload}",
    "/events",
    "/get/{path:path}",
    "/static/{digest}/{name}",
    "/watch/country/{code}/report",
    "/watch/go",
}
"""Where a browser gets something else than a page to look at: streams, files, answers to a script."""


def overlooked(node: Served, places: Iterable[str]) -> list[str]:
    """The pages by the routes of the program and its rooms at which none of the places leads."""
    routes = [*pages.routes(), *room_routes(node.serving.web.site)]
    named = {route.path: route.path_regex for route in routes if "GET" in (route.methods or ())}
    paths = [place.partition("?")[0] for place in places]
    return [path for path, form in named.items() if path not in NO_PAGES and not any(map(form.match, paths))]


def filled(node: Served, other: Served, folder: Path) -> list[str]:
    """Put something on every page; all addresses that a person can look at."""
    hand_on(node, folder)
    (folder / STICK).mkdir()
    node.run(sticks.add_folder(node.person, str(folder / STICK)))
    contact = node.run(node.person.add_contact(other.run(other.person.link())))
    node.run(service.send(node.node, node.person, contact.identity, "x" * 300))
    node.run(node.person.renew())
    channel = node.run(service.create_channel(node.node, node.person, NAME))
    node.run(service.post(node.node, node.person, channel.space, "Вода и хлеб " * 20))
    node.run(node.node.peer_add(other.node.transport_id, "a-host-name-without-end." * 5 + "example", 8485))
    group = node.run(groups.create(node.node, node.person, NAME, [contact.identity]))
    node.run(groups.post(node.node, node.person, group.space, "Хто прынясе муку? " * 20))
    plain = [route.path for route in pages.routes() if "GET" in (route.methods or ()) and "{" not in route.path]
    rooms = [
        "/carry/",
        "/carry/search",
        "/carry/channels",
        "/carry/files",
        "/carry/notices",
        f"/carry/with/{contact.id}/files",
        f"/carry/with/{contact.id}",
        f"/carry/channels/{channel.id}",
        "/carry/groups/new",
        f"/carry/groups/{group.id}",
        f"/carry/groups/{group.id}/members",
    ]
    seen = [*watched(node), *ways_out(node)]
    topics = [f"/help/{topic}" for topic in pages.HELP]
    return [*(path for path in plain if path != "/events"), *rooms, *seen, *topics, f"/people/{contact.id}", "/nowhere"]


def watched(node: Served) -> list[str]:
    """Put something on every page of watch: signals with an outage that lasts, a blocked site, a line cut abroad."""
    now_s = node.node.now_ms() // 1_800_000 * 1800
    rows = ["Time (UTC),Google (Search),A-signal-with-a-name-that-has-no-place-to-break-at-all"]
    for number in range(-6 * 48, 0):
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now_s + number * 1800))
        rows.append(f"{at},{3 if number > -20 else ['90', '95', '100', ''][number % 4]},{40 + number % 9}")
    node.run(watch.consent(node.node, True))
    node.run(watch.set_place(node.node, node.person, "BY", 6697))
    node.run(watch.set_controls(node.node, node.person, ["www.example.by"], ["www.example.org"]))
    node.run(watch.found_channel(node.node, node.person, NAME))
    node.run(watch.read_series(node.node, node.person, "\n".join(rows).encode(), "ioda.csv", "BY"))
    node.run(watch.note_link(node.node, node.person, True, True, False))
    blocked = Measured(
        None, None, 0, now_s, "web_connectivity", "https://example.org/" + "x" * 200, "BY", 6697, "dns", False,
        "blocked", "ok", "down", "unknown", "ok", "a-block-page", "outlast", 0,
    )  # fmt: skip
    node.run(watch.keep(node.node, node.person, blocked, b"{}"))
    cuts = [f"/watch/outage/BY/{cut.start_s}" for cut in watch.outages(node.node, node.person)]
    cost = "/watch/cost?country=BY&days=1&year=2019&reported=56400000"
    plain = [route.path for route in watch_routes() if "GET" in (route.methods or ()) and "{" not in route.path]
    plain.remove("/watch/go")
    return [*plain, cost, "/watch/country/BY", "/watch/country/AF", *cuts]


def ways_out(node: Served) -> list[str]:
    """Put something on every page of reach: bridges, a request, lines lent and borrowed, a served bridge."""
    contact = node.person.contacts()[0].identity
    at = Target("a-host-name-without-end." * 3 + "example", 443)
    bridge = WebBridge(at, "www.example.org", bytes(32), label=NAME)
    [held], _ = node.run(reach.add_bridges(node.node, node.person, write_bridge(bridge)))
    offer = Uplink(bytes(16), ("192.168.1.7",), 8388, bytes(32), 5_000_000, True, node.call(node.node.today) + 9)
    rows = [
        want_row(Want(bytes(16), contact, False, b"", None, False, False, node.call(node.node.now_ms))),
        borrowed_row(Borrowed(contact, offer, False, b"")),
        bridge_row(replace(held, id="f" * 16, peer=contact, number=bytes(16), failing_ms=1, outcome="freeze")),
    ]
    node.run(reach.remember(node.node, node.person, rows))
    node.run(uplinks.lend(node.node, node.person, contact, day_bytes=3_000_000))
    node.run(reach.serve(node.node, node.person, OwnBridge("ss", "127.0.0.1:8388", at, label=NAME)))
    plain = [route.path for route in reach_routes() if "GET" in (route.methods or ()) and "{" not in route.path]
    return [*plain, f"/reach/bridge/{held.id}"]


def lived_in(node: Served, other: Served) -> list[str]:
    """Let two people know each other, and write as people do; the addresses where that stands."""
    them = node.run(node.person.add_contact(other.run(other.person.link())))
    node.run(node.person.verify(them.identity))
    us = other.run(other.person.add_contact(node.run(node.person.link())))
    said = [
        (node, them.identity, "Ці ўсё ў парадку? Тут няма інтэрнэту з другой гадзіны."),
        (other, us.identity, "Да, мы дома. Воды хватает, хлеб в магазине ещё есть."),
        (other, us.identity, "سلام! برق هم قطع شده، ولی حال ما خوب است."),
        (node, them.identity, "Good. The bus leaves at 18:30, I will send the stick with it."),
        (other, us.identity, "OK"),
    ]
    for speaker, to, text in said:
        speaker.run(service.send(speaker.node, speaker.person, to, text))
        listener = other if speaker is node else node
        carry(speaker, listener)
    channel = node.run(service.create_channel(node.node, node.person, "Горад"))
    for text in ("Хлеб ёсць у краме на рагу.", "Water is at the school from nine to noon.", "آب در مدرسه هست."):
        node.run(service.post(node.node, node.person, channel.space, text))
    group = node.run(groups.create(node.node, node.person, "Сям’я", [them.identity]))
    node.run(groups.post(node.node, node.person, group.space, "Хто прынясе муку?"))
    photo = io.BytesIO()
    Image.radial_gradient("L").resize((640, 480)).convert("RGB").save(photo, "JPEG")
    photo.seek(0)
    small = io.BytesIO()
    Image.radial_gradient("L").resize((64, 48)).convert("RGB").save(small, "JPEG")
    node.run(
        files.send(
            node.node, node.person, them.identity, photo, name="дом.jpg", type="image/jpeg", preview=small.getvalue()
        )
    )
    return [f"/carry/with/{them.id}", f"/carry/channels/{channel.id}", f"/carry/groups/{group.id}"]


def carry(source: Served, to: Served) -> None:
    """Carry what one has written for the other by a file."""
    out = io.BytesIO()
    contact = next(one for one in source.person.contacts() if one.identity == to.person.identity)
    report = source.run(source.person.write_bundle(out, to=contact.identity))
    source.run(source.person.bundle_left(report))
    out.seek(0)
    to.run(to.person.read_bundle(out))
