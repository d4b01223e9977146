"""The pages of the node itself: what the person sees and does apart from the rooms."""

from importlib import import_module
from urllib.parse import parse_qs, urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from outlast.edges.doors import same
from outlast.edges.web import Access, StrangerError, Web, route
from outlast.errors import LockedError, NotFoundError
from outlast.ui.page import LANGUAGE_COOKIE, STATIC, Card, fields, go, render, translator


def routes() -> list[BaseRoute]:
    """All routes of the node's own pages."""
    return [
        route("/", "GET", home, Access.OPEN),
        route("/enter", "POST", enter, Access.OPEN),
        route("/language", "POST", choose_language, Access.OPEN),
        route("/unlock", "POST", unlock, Access.HOST),
        route("/leave", "POST", leave, Access.SESSION),
        route("/static/{digest}/{name}", "GET", static, Access.OPEN),
    ]


async def home(request: Request) -> Response:
    """One sentence and a card for each room; for strangers the doorway."""
    if request.state.person is None:
        return await doorway(request)
    return render(request, "home.html", cards=room_cards(request))


def room_cards(request: Request) -> list[Card]:
    """The cards of the rooms that have one."""
    found: list[Card] = []
    for room in request.state.site.rooms.values():
        module = import_module(room.web.partition(":")[0]) if room.web else None
        if card := getattr(module, "card", None):
            found.append(card(request))
    return found


STATIC_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


async def static(request: Request) -> Response:
    """A file of the pages, kept by the browser until its content changes."""
    name = request.path_params["name"]
    kind = STATIC_TYPES.get(name.rpartition(".")[2])
    if kind is None or name not in {path.name for path in STATIC.iterdir()}:
        raise NotFoundError(translator(request)("There is no such page here."))
    lasting = {"cache-control": "public, max-age=31536000, immutable"}
    return Response((STATIC / name).read_bytes(), media_type=kind, headers=lasting)


async def doorway(request: Request, *, status: int = 200) -> Response:
    """What a visitor sees who was not let in, or whose vault is locked."""
    web: Web = request.state.web
    session = request.state.session
    if session is not None and session.door == "localhost":
        return render(request, "unlock.html", status=status, wrong="")
    return render(
        request,
        "doorway.html",
        status=status,
        token=request.query_params.get("t", ""),
        locked=web.node.locked,
        passphrase=web.node.home.exists() and not web.node.home.unattended,
    )


async def enter(request: Request) -> Response:
    """Let a browser in that proves to be the owner's: by the launch token, or by the passphrase."""
    web: Web = request.state.web
    _ = translator(request)
    if request.state.door != "localhost":
        raise StrangerError(_("Nobody let this browser in yet."))
    form = await fields(request)
    token = form.get("token", "")
    if token:
        web.try_secret("token")
        token = parse_qs(urlsplit(token).query).get("t", [token])[0]
        if not same(token, web.launch):
            raise StrangerError(_("That is not the token of this start: the terminal shows the present one."))
        web.tries.forgive("token")
        person = ""
    else:
        web.try_secret("passphrase")
        person = (await web.node.unlock(form.get("passphrase", ""))).key
        web.tries.forgive("passphrase")
    return let_in(request, person)


def let_in(request: Request, person: str) -> Response:
    """Start a session at localhost and go to the start page."""
    import secrets

    web: Web = request.state.web
    secret = secrets.token_urlsafe(32)
    web.sessions.open(secret, "localhost", person, "", web.now_ms())
    answer = go("/")
    answer.set_cookie(request.state.door_cookie, secret, httponly=True, samesite="strict", path="/")
    return answer


async def unlock(request: Request) -> Response:
    """Open a vault by its passphrase."""
    web: Web = request.state.web
    form = await fields(request)
    web.try_secret("passphrase")
    try:
        person = await web.node.unlock(form.get("passphrase", ""))
    except LockedError as error:
        return render(request, "unlock.html", status=error.status, wrong=translator(request)(str(error)))
    web.tries.forgive("passphrase")
    request.state.session.person = person.key
    return go("/")


async def leave(request: Request) -> Response:
    """Log this browser out."""
    web: Web = request.state.web
    await web.end(request.state.session)
    answer = go("/")
    answer.delete_cookie(request.state.door_cookie, path="/")
    return answer


async def choose_language(request: Request) -> Response:
    """Remember the language of this browser."""
    form = await fields(request)
    back = form.get("back", "/")
    answer = go(back if back.startswith("/") and not back.startswith(("//", "/\\")) else "/")
    if form.get("language") in request.state.site.catalogues.languages():
        answer.set_cookie(
            LANGUAGE_COOKIE, form["language"], max_age=31_536_000, httponly=True, samesite="strict", path="/"
        )
    return answer
