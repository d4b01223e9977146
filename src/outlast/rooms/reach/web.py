"""Reach's pages: what works now, bridges, what to set in programs, sharing, settings; all without JS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import quote

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outlast import address
from outlast.errors import NotFoundError, OutlastError, UsageError
from outlast.kernel import Node, Person, parse_id
from outlast.rooms.reach import handing, service, uplinks, words
from outlast.rooms.reach.proto import pac
from outlast.rooms.reach.proto.links import read_bridge
from outlast.rooms.reach.serving import Served
from outlast.rooms.reach.view import Held
from outlast.ui.languages import Translation
from outlast.ui.nearby import reached_at
from outlast.ui.page import Card, at_the_computer, fields, go, render, takes_files, translator, upload, with_camera
from outlast.ui.photo import read_qr

PHOTO_MAX_BYTES: Final = 16 << 20
MB: Final = 1_000_000
SERVED_TEXTS: Final = ("name", "site", "cert", "key", "label")


@dataclass(frozen=True, slots=True)
class Shown:
    """A bridge as a list shows it."""

    held: Held
    name: str
    transport: str
    whose: str  # the contact who handed it, or empty
    outcome: str
    step: service.Step | None = None  # what it is doing, while a way out is looked for
    said: str = ""  # that in a word
    light: str = ""


def routes() -> list[Route]:
    """All pages of reach."""
    return [
        Route("/reach/", show_now, methods=["GET"]),
        Route("/reach/switch", switch, methods=["POST"]),
        Route("/reach/programs", show_programs, methods=["GET"]),
        Route("/reach/bridges", show_bridges, methods=["GET"]),
        Route("/reach/bridges/try", try_bridges, methods=["POST"]),
        Route("/reach/bridges/add", add_bridges, methods=["POST"]),
        Route("/reach/bridges/photo", add_by_photo, methods=["POST"]),
        Route("/reach/bridges/ask", ask_for_bridge, methods=["POST"]),
        Route("/reach/bridges/give", give_bridge, methods=["POST"]),
        Route("/reach/bridges/answer", answer_want, methods=["POST"]),
        Route("/reach/bridges/revoke", revoke_bridges, methods=["POST"]),
        Route("/reach/bridges/forget", forget_bridges, methods=["POST"]),
        Route("/reach/bridge/{id}", show_bridge, methods=["GET"]),
        Route("/reach/bridge/{id}/remove", remove_bridge, methods=["POST"]),
        Route("/reach/sharing", show_sharing, methods=["GET"]),
        Route("/reach/sharing/uplink", set_uplink, methods=["POST"]),
        Route("/reach/sharing/lend", lend_uplink, methods=["POST"]),
        Route("/reach/sharing/borrow", borrow_uplink, methods=["POST"]),
        Route("/reach/sharing/serve", serve_bridge, methods=["POST"]),
        Route("/reach/sharing/stop", stop_serving, methods=["POST"]),
        Route("/reach/sharing/blocked", say_blocked, methods=["POST"]),
        Route("/reach/settings", show_settings, methods=["GET"]),
        Route("/reach/settings/gate", set_gate, methods=["POST"]),
        Route("/reach/settings/test", set_test, methods=["POST"]),
        Route("/reach/settings/publish", set_publish, methods=["POST"]),
    ]


def card(request: Request) -> Card:
    """Reach on the home page: how it stands, and how many ask for a bridge."""
    _ = translator(request)
    node, person = _who(request)
    now = service.state(node, person)
    return Card("/reach/", _("A way out"), _(words.NOW[now.code]), len(service.wants(person)), "reach")


# ---- what works now ----


async def show_now(request: Request) -> Response:
    """What works now and since when, and what each way out is doing."""
    return _now(request)


async def switch(request: Request) -> Response:
    """The one button."""
    on = (await fields(request)).get("on") == "yes"
    await service.switch(*_who(request), on=on)
    return go("/reach/")


def _now(request: Request) -> Response:
    _ = translator(request)
    node, person = _who(request)
    now = service.state(node, person)
    steps = [
        (
            one,
            one.label if one.label and request.state.door == "localhost" else one.id[:8],
            _(words.TRANSPORTS.get(one.transport, words.TRANSPORTS["other"])),
            _(words.STEPS[one.state]),
            words.STEP_LIGHTS[one.state],
            words.outcome(one.outcome, _),
        )
        for one in now.steps
    ]
    using = next((name for one, name, *_rest in steps if one.id == now.using), now.using[:8])
    return _render(
        request,
        "reach/now.html",
        None,
        now=now,
        text=_(words.NOW[now.code]),
        light=words.LIGHTS[now.code],
        steps=steps,
        using=using,
        now_ms=node.now_ms(),
        wants=len(service.wants(person)),
        bridges=len(service.bridges(person)),
    )


# ---- programs ----


async def show_programs(request: Request) -> Response:
    """What to set in browsers, phones and other programs."""
    node, person = _who(request)
    chosen, now = service.settings(person), service.state(node, person)
    places = [one for named in (now.listens or chosen.listen) for one in reached_at(address.read(named))]
    at = places[0]
    account = f"{quote(chosen.user)}:{quote(chosen.password)}@" if chosen.user and request.state.door != "lan" else ""
    telegram = f"tg://socks?server={quote(at.host)}&port={at.port}"
    if account:
        telegram += f"&user={quote(chosen.user)}&pass={quote(chosen.password)}"
    return _render(
        request,
        "reach/programs.html",
        None,
        at=at,
        pac=pac.url(at),
        curl=f"curl --proxy socks5h://{account}{address.show(at)} https://example.org/",
        telegram=telegram,
        nearby=[pac.url(one) for one in places if not service.is_loopback(one.host)],
        has_password=bool(chosen.user),
        on=chosen.on,
    )


# ---- bridges ----


@at_the_computer
async def show_bridges(request: Request) -> Response:
    """The bridges that can be used, who asks for one, and how to get and give them."""
    return with_camera(request, _bridges(request))


@at_the_computer
async def try_bridges(request: Request) -> Response:
    """Try all bridges now."""
    try:
        service.try_all(*_who(request))
    except OutlastError as error:
        return _bridges(request, error=error)
    return go("/reach/bridges#list")


@at_the_computer
async def add_bridges(request: Request) -> Response:
    """Keep bridges by their links."""
    return await _add(request, (await fields(request)).get("link", ""))


@at_the_computer
@takes_files(PHOTO_MAX_BYTES)
async def add_by_photo(request: Request) -> Response:
    """Keep a bridge by a photo of its QR code."""
    _ = translator(request)
    try:
        file, _form = await upload(request, "photo", memory_bytes=PHOTO_MAX_BYTES)
        text = await read_qr(await file.read())
        if not text:
            raise NotFoundError("No QR code was found in this photo: come closer, hold still, avoid glare.")
    except OutlastError as error:
        return _bridges(request, error=error)
    return await _add(request, text)


async def _add(request: Request, text: str) -> Response:
    try:
        if not text:
            raise UsageError("give the bridge's link")
        _held, wrong = await service.add_bridges(*_who(request), text)
        if wrong:
            raise UsageError("not all of these links are kept: %(problem)s", problem=wrong[0])
    except OutlastError as error:
        return _bridges(request, error=error, typed=text)
    return go("/reach/bridges")


@at_the_computer
async def ask_for_bridge(request: Request) -> Response:
    """Ask a contact for a bridge."""
    return await _with_contact(request, handing.ask)


@at_the_computer
async def give_bridge(request: Request) -> Response:
    """Give a contact a bridge."""
    form = await fields(request)
    try:
        await handing.invite(*_who(request), _contact(form), form.get("bridge", ""))
    except OutlastError as error:
        return _bridges(request, error=error)
    return go("/reach/bridges")


@at_the_computer
async def answer_want(request: Request) -> Response:
    """Give whoever asked a bridge, or forget that they asked."""
    form = await fields(request)
    act = handing.answer if form.get("give") == "yes" else service.refuse
    try:
        await act(*_who(request), _number(form.get("request", "")))
    except OutlastError as error:
        return _bridges(request, error=error)
    return go("/reach/bridges")


@at_the_computer
async def revoke_bridges(request: Request) -> Response:
    """Take back what a contact got from here."""
    return await _with_contact(request, handing.revoke)


@at_the_computer
async def forget_bridges(request: Request) -> Response:
    """Wipe all bridges and what is remembered of them."""
    await service.forget_all(*_who(request))
    return go("/reach/bridges")


@at_the_computer
async def show_bridge(request: Request) -> Response:
    """One bridge: its link and QR code, to hand on or to remove."""
    _ = translator(request)
    node, person = _who(request)
    held = service.find_bridge(person, request.path_params["id"])
    return _render(
        request,
        "reach/bridge.html",
        None,
        one=_shown(held, _names(person), _),
        step=next((one for one in service.state(node, person).steps if one.id == held.id), None),
        contacts=person.contacts(),
    )


@at_the_computer
async def remove_bridge(request: Request) -> Response:
    """Forget one bridge."""
    await service.remove_bridge(*_who(request), request.path_params["id"])
    return go("/reach/bridges")


def _bridges(request: Request, *, error: OutlastError | None = None, typed: str = "") -> Response:
    _ = translator(request)
    node, person = _who(request)
    names = _names(person)
    now = service.state(node, person)
    steps = {one.id: one for one in now.steps}
    return _render(
        request,
        "reach/bridges.html",
        error,
        bridges=[_shown(one, names, _, steps.get(one.id)) for one in service.bridges(person)],
        on=now.code != "off",
        tries=any(one.state == "trying" for one in now.steps),
        now_ms=node.now_ms(),
        wants=[(one, names.get(one.peer, "")) for one in service.wants(person)],
        asked=[(one, names.get(one.peer, "")) for one in service.asked(person) if one.whom is None],
        contacts=person.contacts(),
        serves=bool(service.served(person)),
        typed=typed,
    )


def _shown(held: Held, names: dict[bytes, str], _: Translation, step: service.Step | None = None) -> Shown:
    bridge = read_bridge(held.link)
    outcome = step.outcome if step is not None and step.state == "failed" else held.outcome if held.failing_ms else None
    return Shown(
        held,
        service.label_of(bridge) or held.id[:8],
        _(words.TRANSPORTS[service.transport_of(bridge)]),
        names.get(held.peer, "") if held.peer else "",
        words.outcome(outcome, _),
        step,
        "" if step is None else _(words.STEPS[step.state]),
        "" if step is None else words.STEP_LIGHTS[step.state],
    )


# ---- sharing ----


@at_the_computer
async def show_sharing(request: Request) -> Response:
    """The own uplink for neighbours, theirs for oneself, and bridges that this node serves."""
    return _sharing(request)


@at_the_computer
async def set_uplink(request: Request) -> Response:
    """Share the own uplink, or no more; how much, and whether it is paid by the byte."""
    form = await fields(request)
    on, metered = form.get("share") == "on", form.get("metered") == "on"
    try:
        await service.share(*_who(request), on=on, day_bytes=_megabytes(form.get("day_mb", "")), metered=metered)
    except OutlastError as error:
        return _sharing(request, error=error)
    return go("/reach/sharing")


@at_the_computer
async def lend_uplink(request: Request) -> Response:
    """Let a contact use the own uplink, or no more."""
    form = await fields(request)
    node, person = _who(request)
    try:
        if form.get("stop") == "yes":
            await uplinks.stop_lending(node, person, _contact(form))
        else:
            await uplinks.lend(node, person, _contact(form), day_bytes=_megabytes(form.get("day_mb", "")))
    except OutlastError as error:
        return _sharing(request, error=error)
    return go("/reach/sharing")


@at_the_computer
async def borrow_uplink(request: Request) -> Response:
    """Use a neighbour's uplink, or no more."""
    form = await fields(request)
    number = _number(form.get("number", ""))
    await service.accept(*_who(request), number, accepted=form.get("accept") == "yes")
    return go("/reach/sharing")


@at_the_computer
async def serve_bridge(request: Request) -> Response:
    """Serve a bridge from this node."""
    form = await fields(request)
    transport: Literal["web", "ss"] = "ss" if form.get("transport") == "ss" else "web"
    try:
        listen = address.read(form.get("listen", ""))
        at = address.read(form.get("at", "") or form.get("listen", ""))
        texts = {name: form.get(name, "") for name in SERVED_TEXTS}
        new = msgspec.structs.replace(Served(transport, address.show(listen), at), **texts)
        await service.serve(*_who(request), new)
    except OutlastError as error:
        return _sharing(request, error=error, typed=form)
    return go("/reach/sharing")


@at_the_computer
async def stop_serving(request: Request) -> Response:
    """Serve a bridge no more."""
    await service.stop_serving(*_who(request), (await fields(request)).get("id", ""))
    return go("/reach/sharing")


@at_the_computer
async def say_blocked(request: Request) -> Response:
    """Say that an own bridge is blocked, so that who is on it moves."""
    await service.lose(*_who(request), (await fields(request)).get("id", ""))
    return go("/reach/sharing")


def _sharing(request: Request, *, error: OutlastError | None = None, typed: dict[str, str] | None = None) -> Response:
    node, person = _who(request)
    names = _names(person)
    lent = service.shares(person)
    return _render(
        request,
        "reach/sharing.html",
        error,
        chosen=service.settings(person),
        mb=MB,
        lent=[(one, names.get(one.peer, ""), one.peer.hex()) for one in lent],
        lent_to={one.peer for one in lent},
        offers=[(one, names.get(one.peer, "")) for one in service.neighbours(person)],
        served=[(one, serves, address.show(one.at)) for one, serves in service.served(person)],
        members=len(service.invited(person)),
        contacts=person.contacts(),
        typed=dict.fromkeys(("transport", "listen", "at", *SERVED_TEXTS), "") | (typed or {}),
        again=typed is not None,
        problem=service.relaying(node, person).lacking,
    )


# ---- settings ----


@at_the_computer
async def show_settings(request: Request) -> Response:
    """Where programs connect to, what goes past the bridges, what is published."""
    return _settings(request)


@at_the_computer
async def set_gate(request: Request) -> Response:
    """Where programs connect to, who may, and what goes past the bridges."""
    form = await fields(request)
    user, password, kept = form.get("user", ""), form.get("password", ""), service.settings(request.state.person)
    if user and user == kept.user and not password:
        password = kept.password
    listen, direct = form.get("listen", "").split(), form.get("direct", "").split()
    try:
        await service.set_gate(*_who(request), listen, user, password if user else "", direct)
    except OutlastError as error:
        return _settings(request, error=error, typed=form)
    return go("/reach/settings")


@at_the_computer
async def set_test(request: Request) -> Response:
    """What is fetched to test bridges that know no echo."""
    form = await fields(request)
    try:
        await service.set_test_url(*_who(request), form.get("url", ""))
    except OutlastError as error:
        return _settings(request, error=error, typed=form)
    return go("/reach/settings")


@at_the_computer
async def set_publish(request: Request) -> Response:
    """Publish which kinds of ways out work and fail here, or no more."""
    form = await fields(request)
    node, person = _who(request)
    try:
        if form.get("publish") == "on":
            await service.set_place(node, person, form.get("country", ""), form.get("asn", ""))
            await service.publish(node, person, on=True, channel=form.get("channel", ""))
        else:
            await service.publish(node, person, on=False)
    except OutlastError as error:
        return _settings(request, error=error, typed=form)
    return go("/reach/settings")


def _settings(request: Request, *, error: OutlastError | None = None, typed: dict[str, str] | None = None) -> Response:
    chosen = service.settings(request.state.person)
    shown = {
        "listen": " ".join(chosen.listen),
        "user": chosen.user,
        "direct": "\n".join(chosen.direct),
        "url": chosen.test_url,
        "publish": "on" if chosen.publishes else "",
        "country": chosen.country,
        "asn": str(chosen.asn or ""),
        "channel": "",
    }
    return _render(request, "reach/settings.html", error, chosen=chosen, shown=shown | (typed or {}))


# ---- what all share ----


def _render(request: Request, template: str, error: OutlastError | None, **context: Any) -> Response:
    line = translator(request)(error) if error else ""
    wrong = line[:1].upper() + line[1:]
    return render(request, template, status=error.status if error else 200, wrong=wrong, **context)


def _who(request: Request) -> tuple[Node, Person]:
    return request.state.node, request.state.person


def _names(person: Person) -> dict[bytes, str]:
    return {contact.identity: contact.name for contact in person.contacts()}


def _contact(form: dict[str, str]) -> bytes:
    if not form.get("contact"):
        raise UsageError("choose a contact first")
    return parse_id(form["contact"])


def _number(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise UsageError("this page cannot be used like that") from None


def _megabytes(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise UsageError("a quota is a number of megabytes a day; 0 is none")
    return int(text) * MB


async def _with_contact(request: Request, act: Any) -> Response:
    try:
        await act(*_who(request), _contact(await fields(request)))
    except OutlastError as error:
        return _bridges(request, error=error)
    return go("/reach/bridges")
