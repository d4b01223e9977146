"""Pages of the encrypted door: its switch, what a phone installs, the passphrase before what is the owner's alone."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outlast.edges.doors import Session
from outlast.edges.gate import Access, ForbiddenError, Web, route
from outlast.edges.https import trusting
from outlast.errors import LockedError, NotFoundError
from outlast.kernel import Person
from outlast.ui.languages import marked
from outlast.ui.page import fields, go, render, translator

NOTICES = {
    "https-on": marked("The encrypted door is open."),
    "https-off": marked("The encrypted door is closed."),
}


def routes() -> list[Route]:
    """The pages of the encrypted door."""
    return [
        route("/trust", "GET", trust, Access.OPEN),
        route("/trust/outlast.crt", "GET", certificate, Access.OPEN),
        route("/trust", "POST", switch, Access.OWNER),
        route("/prove", "GET", prove_page, Access.PERSON),
        route("/prove", "POST", prove, Access.PERSON),
    ]


async def trust(request: Request) -> Response:
    """What to install on which phone; at the computer, what to compare it with, and the switch."""
    web: Web = request.state.web
    sits_here = request.state.door != "lan" and request.state.person is not None
    return render(request, "trust.html", shown=web.authority, url=web.https_url, sits_here=sits_here)


async def certificate(request: Request) -> Response:
    """The certificate that phones install."""
    web: Web = request.state.web
    if web.authority is None:
        raise NotFoundError("There is no such page here.")
    return Response(web.authority.certificate, media_type="application/x-x509-ca-cert")


async def switch(request: Request) -> Response:
    """Open or close the encrypted door."""
    web: Web = request.state.web
    form = await fields(request)
    on = form.get("https") != "off"
    await trusting.switch(web.node, on, anew=form.get("https") == "anew")
    if web.match_https is not None:
        await web.match_https()
    return go("/trust", "https-on" if on else "https-off")


async def prove_page(request: Request) -> Response:
    """The passphrase is asked for, over an encrypted door alone."""
    return render_prove(request, request.query_params.get("back", "/"))


def render_prove(request: Request, back: str, wrong: str = "", status: int = 200) -> Response:
    """The form, with what was wrong."""
    if request.state.door != "https":
        raise NotFoundError("There is no such page here.")
    return render(request, "prove.html", status=status, back=back, wrong=wrong)


async def prove(request: Request) -> Response:
    """For some minutes this phone may do what is done at the computer otherwise: its bearer knows the passphrase."""
    web: Web = request.state.web
    session: Session = request.state.session
    person: Person = request.state.person
    form = await fields(request)
    back = form.get("back", "/")
    if session.door != "https" or not web.home.needs_passphrase(person.key):
        raise ForbiddenError("This is done at the computer that runs the node, not over Wi-Fi.")
    trial = f"prove {person.key}"
    web.try_secret(trial)
    try:
        keys = await web.node.read(lambda: web.home.whose(form.get("passphrase", "")))
    except LockedError as error:
        return render_prove(request, back, translator(request)(error), error.status)
    if keys.person != person.key:
        return render_prove(request, back, translator(request)("That opens another vault than yours."), 403)
    web.tries.forgive(trial)
    session.proved_ms = web.now_ms()
    return go(back if back.startswith("/") and not back.startswith(("//", "/\\")) else "/")
