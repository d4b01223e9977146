"""The household: several people on one node, each with a vault that opens by their own passphrase.

The pages are for who sits at the computer. Nobody's name is shown to anybody else: a page says how many live here.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outlast.edges.first_run import LATER, kept_file, newcomer, remember
from outlast.edges.gate import Access, Web, let_in, route
from outlast.edges.people import renew_link
from outlast.errors import OutlastError, UsageError
from outlast.kernel import BACKUP_MAX_BYTES, Node, Person
from outlast.ui.languages import marked
from outlast.ui.page import error_line, fields, go, render, translator, whole_moment

HOWS: Final = ("new", "words", "backup")
NOTICES: Final = {"gone": marked("You no longer live on this node: your vault was destroyed.")}


def routes() -> list[Route]:
    """The pages of the household."""
    return [
        route("/household", "GET", household, Access.OWNER),
        route("/household/add", "GET", add_page, Access.OWNER),
        route("/household/add", "POST", add, Access.OWNER, BACKUP_MAX_BYTES),
        route("/household/remove", "POST", remove, Access.OWNER),
    ]


async def household(request: Request) -> Response:
    """How many live here, and how one comes or goes."""
    web: Web = request.state.web
    return render(request, "household.html", others=len(web.home.people()) - 1)


async def add_page(request: Request) -> Response:
    """The form that the newcomer fills in."""
    return render_add(request, request.query_params.get("how", "new"), {})


def render_add(request: Request, how: str, form: dict[str, str], wrong: str = "", status: int = 200) -> Response:
    """The form, again with the name that was typed when something was wrong with it; never with a secret."""
    how = how if how in HOWS else "new"
    typed, now = form.get("name", ""), whole_moment(datetime.now(), translator(request))
    more = {"how": how, "typed": typed, "wrong": wrong, "now": now, "step": 0}
    return render(request, "first/name.html", status=status, tabs=[], **more)


async def add(request: Request) -> Response:
    """Somebody more lives here; this browser is theirs from now on, until they log out."""
    web: Web = request.state.web
    node: Node = request.state.node
    _ = translator(request)
    form, data = await kept_file(request)
    how = form.get("how", "new")
    try:
        if form.get("passphrase", "") != form.get("again"):
            raise UsageError("the two passphrases differ: type the same twice")
        # A passphrase that somebody else has is refused, so each try here is one at theirs.
        web.try_secret(f"enter {request.state.door}")
        name, more = await newcomer(how, form, data)
        person = await node.add_person(name, form.get("passphrase", ""), **more)
    except OutlastError as error:
        return render_add(request, how, form, error_line(request, error), error.status)
    await remember(person, LATER)
    await renew_link(person)
    await web.end(request.state.session)
    answer = go("/first/words")
    await let_in(request, answer, person.key)
    return answer


async def remove(request: Request) -> Response:
    """Destroy the vault of the one who asks, after the word was typed; their phones are shut out."""
    web: Web = request.state.web
    person: Person = request.state.person
    _ = translator(request)
    if (await fields(request)).get("word", "").upper() != _("WIPE").upper():
        raise UsageError("Nothing was deleted: type the word exactly as it is shown.")
    await request.state.node.remove_person(person.key)
    web.sessions.close_person(person.key)
    return go("/", "gone")
