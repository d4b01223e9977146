"""Phones: how one joins over the local network, and how a lost one is shut out.

A QR code on the host's screen is an ordinary URL. Opening it changes nothing and shows a button; the button redeems the
token, once and within five minutes; both screens then show the same code, and the host lets the phone in.
"""

import secrets
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outlast.edges.doors import Invitation, Session
from outlast.edges.gate import Access, Web, route, set_session
from outlast.errors import NotFoundError
from outlast.kernel import Person
from outlast.ui.languages import marked
from outlast.ui.page import fields, go, render

LABEL_MAX_CHARS: Final = 40
NOTICES: Final = {
    "joined": marked("The phone is in."),
    "refused": marked("Refused. That phone sees nothing."),
    "lost": marked("Shut out. That phone shows nothing from here any more."),
    "all-lost": marked("Shut out. No phone shows anything from here any more."),
}


def routes() -> list[Route]:
    """The pages of phones, on both screens."""
    return [
        route("/phones", "GET", phones, Access.OWNER),
        route("/phones/invite", "POST", invite, Access.OWNER),
        route("/phones/invite", "GET", invitation, Access.OWNER),
        route("/phones/answer", "POST", answer, Access.OWNER),
        route("/phones/lost", "POST", lost, Access.OWNER),
        route("/lost", "GET", lost_page, Access.OWNER),
        route("/join/{token}", "GET", join_page, Access.OPEN),
        route("/join/{token}", "POST", join, Access.OPEN),
    ]


async def phones(request: Request) -> Response:
    """The phones that joined, and the door for them."""
    web: Web = request.state.web
    person: Person = request.state.person
    joined = web.phones(person)
    return render(request, "phones.html", phones=joined, lan=web.lan, urls=web.lan_urls())


async def lost_page(request: Request) -> Response:
    """What to do when a phone, a computer, a stick or a card is gone."""
    web: Web = request.state.web
    person: Person = request.state.person
    joined = web.phones(person)
    earlier = [one for one in person.devices() if not one.is_present and not one.revoked]
    sealed = web.home.needs_passphrase(person.key)
    return render(request, "lost.html", phones=joined, earlier=len(earlier), sealed=sealed)


async def invite(request: Request) -> Response:
    """Make a QR code for one phone."""
    web: Web = request.state.web
    person: Person = request.state.person
    if before := web.invitations.of(person.key, web.now_ms()):
        await drop(web, before)
    web.invitations.make(person.key, web.now_ms())
    return go("/phones/invite")


async def invitation(request: Request) -> Response:
    """The QR code while nobody used it; then the code to compare."""
    web: Web = request.state.web
    person: Person = request.state.person
    shown = web.invitations.of(person.key, web.now_ms())
    doors = [*web.lan_urls(), *([web.https_url] if web.https_url else [])]
    urls = [f"{url}/join/{shown.token}" for url in doors] if shown else []
    return render(request, "invite.html", shown=shown, urls=urls, lan=web.lan)


async def answer(request: Request) -> Response:
    """The host compared the codes: let the phone in, or refuse it."""
    web: Web = request.state.web
    person: Person = request.state.person
    form = await fields(request)
    shown = web.invitations.of(person.key, web.now_ms())
    # The code is sent along: what the host confirms is what the host saw.
    if shown is None or shown.session is None or shown.session.waiting_code != form.get("code"):
        raise NotFoundError("That invitation is over: make a new one.")
    if form.get("answer") != "yes":
        await drop(web, shown)
        return go("/phones", "refused")
    shown.session.waiting_code = ""
    web.invitations.drop(shown)
    await web.keep(shown.session)
    return go("/phones", "joined")


async def drop(web: Web, shown: Invitation) -> None:
    """Take an invitation back, and shut out who redeemed it."""
    web.invitations.drop(shown)
    if shown.session is not None:
        await web.end(shown.session)
    web.node.touch()


async def lost(request: Request) -> Response:
    """Shut a phone out at once, or all of them; their open pages stop."""
    web: Web = request.state.web
    named = (await fields(request)).get("phone", "")
    joined = web.phones(request.state.person)
    ended = [phone for phone in joined if named in ("all", phone.digest.hex())]
    if not ended:
        raise NotFoundError("No such phone has joined.")
    for phone in ended:
        await web.end(phone)
    return go("/phones", "lost" if named != "all" else "all-lost")


# ---- on the phone ----


async def join_page(request: Request) -> Response:
    """What the QR code opens: a button, and nothing has changed yet."""
    if request.state.person is not None:
        return go("/")
    web: Web = request.state.web
    token = request.path_params["token"]
    good = web.invitations.find(token, web.now_ms()) is not None
    return waiting(request) or render(request, "join.html", status=200 if good else 404, good=good, token=token)


async def join(request: Request) -> Response:
    """Redeem a token: this browser now waits for the host's word."""
    web: Web = request.state.web
    found = web.invitations.find(request.path_params["token"], web.now_ms())
    if found is None:
        web.try_secret("join")
        return render(request, "join.html", status=404, good=False, token="")
    form = await fields(request)
    label = "".join(c for c in form.get("label", "") if c.isprintable())[:LABEL_MAX_CHARS]
    secret = secrets.token_urlsafe(32)
    session = web.sessions.open(secret, request.state.door, found.person, label, web.now_ms())
    session.waiting_code = f"{secrets.randbelow(900) + 100} {secrets.randbelow(900) + 100}"
    found.session = session
    web.node.touch()
    response = go("/")
    set_session(request, response, secret, max_age=180 * 86_400)
    return response


def waiting(request: Request) -> Response | None:
    """The page of a phone that waits to be let in, or None when this visitor is none."""
    session: Session | None = request.state.session
    if session is None or not session.waiting_code:
        return None
    web: Web = request.state.web
    shown = web.invitations.of(session.person, web.now_ms())
    if shown is None or shown.session is not session:
        return render(request, "join.html", status=404, good=False, token="")
    return render(request, "waiting.html", code=session.waiting_code)
