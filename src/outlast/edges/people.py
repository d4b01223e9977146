"""People and the nodes that this one meets: contacts, verification, neighbours."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outlast import address
from outlast.edges.gate import Access, route
from outlast.edges.residents import keep
from outlast.errors import NotFoundError, OutlastError, UsageError
from outlast.kernel import Contact, Discovery, Node, Person, node_text, parse_id, parse_node
from outlast.ui.languages import marked
from outlast.ui.nearby import heard_at
from outlast.ui.page import error_line, fields, go, render, upload, with_camera
from outlast.ui.photo import read_qr

LINK_ROW: Final = "web/link"
LINK_YOUNG_DAYS: Final = 30
"""A link is good for 90 days; one that is given away should have most of them left."""
PHOTO_MAX_BYTES: Final = 16 << 20
NOTICES: Final = {
    "added": marked("Added. Now compare the six words, face to face or on the phone."),
    "verified": marked("Verified. You know whom you write to."),
    "renamed": marked("Renamed."),
    "blocked": marked("Blocked. Their new messages are not opened."),
    "unblocked": marked("Unblocked."),
    "accepted": marked("Accepted. New messages are sealed to this device too."),
    "revoked": marked("Ended. Your contacts are told as soon as messages travel."),
    "renewed": marked("This computer is a new device now. Your contacts are told as soon as messages travel."),
    "peer-added": marked("Added. The node connects as soon as it can reach it."),
    "peer-removed": marked("Removed."),
}


def routes() -> list[Route]:
    """The pages of contacts and neighbours."""
    return [
        route("/people", "GET", people, Access.PERSON),
        route("/people/me", "GET", me, Access.PERSON),
        route("/people/me", "POST", make_link, Access.PERSON),
        route("/people/add", "GET", add_page, Access.PERSON),
        route("/people/add", "POST", add, Access.PERSON),
        route("/people/photo", "POST", add_by_photo, Access.PERSON, PHOTO_MAX_BYTES),
        route("/people/{id}", "GET", contact, Access.PERSON),
        route("/people/{id}/name", "POST", rename, Access.PERSON),
        route("/people/{id}/block", "POST", block, Access.PERSON),
        route("/people/{id}/verify", "POST", verify, Access.OWNER),
        route("/people/{id}/device", "POST", accept_device, Access.OWNER),
        route("/devices", "GET", devices, Access.OWNER),
        route("/devices/revoke", "POST", revoke_devices, Access.OWNER),
        route("/devices/renew", "POST", renew_device, Access.OWNER),
        route("/devices/noted", "POST", note_renewal, Access.OWNER),
        route("/nodes", "GET", nodes, Access.OWNER),
        route("/nodes/find", "POST", find_nodes, Access.OWNER),
        route("/nodes/add", "POST", add_node, Access.OWNER),
        route("/nodes/remove", "POST", remove_node, Access.OWNER),
    ]


async def people(request: Request) -> Response:
    """All contacts."""
    person: Person = request.state.person
    return render(request, "people.html", contacts=person.contacts())


async def me(request: Request) -> Response:
    """This person's own link, as text and QR code, and the six words."""
    person: Person = request.state.person
    return render(request, "me.html", words=person.words(), link=kept_link(person))


async def make_link(request: Request) -> Response:
    """Make a link that is good from today on."""
    await renew_link(request.state.person)
    return go("/people/me")


def kept_link(person: Person) -> str:
    """The link made here last, or nothing when there is none that is young enough to give away."""
    row = person.vault.meta(LINK_ROW)
    day, device, link = msgspec.msgpack.decode(row, type=tuple[int, bytes, str]) if row else (0, b"", "")
    is_good = device == person.device and person.node.today() - day < LINK_YOUNG_DAYS
    return link if is_good else ""


async def renew_link(person: Person) -> None:
    """Make a link and keep it for the pages: showing one must not make one."""
    link = await person.link()
    await keep(person, LINK_ROW, msgspec.msgpack.encode((person.node.today(), person.device, link)))


async def add_page(request: Request) -> Response:
    """The forms to add somebody: by link, by a photographed QR code."""
    return render_add(request)


def render_add(request: Request, typed: str = "", error: OutlastError | None = None) -> Response:
    """The forms, again with the link that was typed when something was wrong with it."""
    status, wrong = error.status if error else 200, error_line(request, error)
    return with_camera(request, render(request, "add.html", status=status, typed=typed, wrong=wrong))


async def add(request: Request) -> Response:
    """Add somebody by their link."""
    person: Person = request.state.person
    link = (await fields(request)).get("link", "")
    try:
        added = await person.add_contact(link)
    except OutlastError as error:
        return render_add(request, link, error)
    return go(f"/people/{added.id}", "" if added.verified_ms else "added")


async def add_by_photo(request: Request) -> Response:
    """Add somebody by a photo of their QR code."""
    person: Person = request.state.person
    file, _form = await upload(request, "photo", memory_bytes=PHOTO_MAX_BYTES)
    try:
        text = await read_qr(await file.read())
        if not text:
            # Not wrong use: pages that show what the camera sees send one frame after another until there is a code.
            raise NotFoundError("No QR code was found in this photo: come closer, hold still, avoid glare.")
        added = await person.add_contact(text)
    except OutlastError as error:
        return render_add(request, error=error)
    return go(f"/people/{added.id}", "" if added.verified_ms else "added")


def named(request: Request) -> Contact:
    """The contact in the address of the page; raises NotFoundError, UsageError."""
    person: Person = request.state.person
    return person.contact(parse_id(request.path_params["id"]))


async def contact(request: Request) -> Response:
    """One contact: the six words, their devices, their name, blocking."""
    found = named(request)
    theirs = request.state.person.contact_devices(found.identity)
    return render(request, "contact.html", contact=found, devices=theirs, rooms=list(request.state.site.rooms))


async def rename(request: Request) -> Response:
    """Call a contact by another name."""
    found = named(request)
    form = await fields(request)
    await request.state.person.rename(found.identity, form.get("name", ""))
    return go(f"/people/{found.id}", "renamed")


async def block(request: Request) -> Response:
    """Block a contact, or unblock them."""
    found = named(request)
    form = await fields(request)
    blocked = form.get("blocked") == "yes"
    await request.state.person.block(found.identity, blocked)
    return go(f"/people/{found.id}", "blocked" if blocked else "unblocked")


async def verify(request: Request) -> Response:
    """The six words were compared."""
    found = named(request)
    await request.state.person.verify(found.identity)
    return go(f"/people/{found.id}", "verified")


async def accept_device(request: Request) -> Response:
    """The contact said that the new device is theirs."""
    found = named(request)
    await request.state.person.accept_device(found.identity)
    return go(f"/people/{found.id}", "accepted")


async def devices(request: Request) -> Response:
    """This person's own devices, and what can be done about a lost or copied one."""
    person: Person = request.state.person
    return render(request, "devices.html", devices=person.devices(), state=person.device_state)


async def revoke_devices(request: Request) -> Response:
    """End one earlier device, or all of them."""
    person: Person = request.state.person
    form = await fields(request)
    chosen = form.get("device", "")
    old = [one.device for one in person.old_devices() if chosen in ("all", one.device.hex())]
    if not old:
        raise NotFoundError("This device is not among yours, or ended already.")
    for device in old:
        await person.revoke_device(device)
    return go("/devices", "revoked")


async def renew_device(request: Request) -> Response:
    """Go on as a new device."""
    person: Person = request.state.person
    await person.renew()
    await person.note_renewal()
    await renew_link(person)
    return go("/devices", "renewed")


async def note_renewal(request: Request) -> Response:
    """The person has read that the device renewed itself."""
    await request.state.person.note_renewal()
    return go("/devices")


async def nodes(request: Request) -> Response:
    """The other nodes that this one meets, and how others meet it."""
    return render_nodes(request)


def render_nodes(
    request: Request, form: Mapping[str, str] = MappingProxyType({}), error: OutlastError | None = None
) -> Response:
    """The page, again with what was typed when something was wrong with it."""
    node: Node = request.state.node
    return render(
        request,
        "nodes.html",
        status=error.status if error else 200,
        node_id=node_text(node.transport_id),
        peers=[(node_text(peer.node), peer) for peer in node.peers()],
        addresses=[address.show((host, port)) for own, port in node.heard_at for host in heard_at(own)],
        discovery=node.discovery,
        typed=form,
        wrong=error_line(request, error),
    )


async def find_nodes(request: Request) -> Response:
    """Look for nodes in local networks, or stop it."""
    form = await fields(request)
    chosen = form.get("whom", "")
    if chosen not in list(Discovery):
        raise UsageError("choose whom to look for")
    await request.state.node.set_discovery(Discovery(chosen))
    return go("/first/phone" if form.get("back") == "/first/phone" else "/nodes")


async def add_node(request: Request) -> Response:
    """Keep a session with another node from now on."""
    form = await fields(request)
    try:
        host, port = address.read(form.get("address", ""))
        await request.state.node.peer_add(parse_node(form.get("node", "")), host, port)
    except OutlastError as error:
        return render_nodes(request, form, error)
    return go("/nodes", "peer-added")


async def remove_node(request: Request) -> Response:
    """Forget a neighbour."""
    form = await fields(request)
    await request.state.node.peer_remove(parse_node(form.get("node", "")))
    return go("/nodes", "peer-removed")
