"""The first run: at most five steps, each of which can be skipped and taken up again later.

Language and way of beginning need no memory; the steps behind the making of the node are remembered in the vault until
they are done or put away.
"""

from datetime import datetime
from typing import Final, TypedDict

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outlast.edges.gate import Access, Web, route
from outlast.edges.people import kept_link, renew_link
from outlast.edges.residents import keep
from outlast.errors import OutlastError, UsageError
from outlast.kernel import BACKUP_MAX_BYTES, BackupBody, Node, Person, entropy_of, open_backup
from outlast.ui.page import LANGUAGE_COOKIE, error_line, fields, go, render, translator, upload, whole_moment

HOWS: Final = ("new", "join", "words", "backup")
LEFT_ROW: Final = "web/first-run"
LATER: Final = ("words", "phone")
"""The steps that come behind the making of the node."""


def routes() -> list[Route]:
    """The pages of the first run."""
    return [
        route("/first/language", "GET", language, Access.HOST),
        route("/first/how", "GET", how, Access.HOST),
        route("/first/name", "GET", name, Access.HOST),
        route("/first/name", "POST", make, Access.HOST, BACKUP_MAX_BYTES),
        route("/first/words", "GET", words, Access.OWNER),
        route("/first/phone", "GET", phone, Access.OWNER),
        route("/first/done", "POST", done, Access.OWNER),
    ]


def first_page(request: Request) -> str:
    """Where the first run goes on before there is a node."""
    several = len(request.state.site.catalogues.languages()) > 1
    return "/first/language" if several and LANGUAGE_COOKIE not in request.cookies else "/first/how"


async def language(request: Request) -> Response:
    """Step 1: in which language."""
    return only_before(request) or render(request, "first/language.html", step=1)


async def how(request: Request) -> Response:
    """Step 2: begin anew, join friends, or come back from a backup."""
    return only_before(request) or render(request, "first/how.html", step=2)


async def name(request: Request) -> Response:
    """Step 3: a name and a passphrase, or what brings them back."""
    chosen = request.query_params.get("how", "new")
    return only_before(request) or render_name(request, chosen if chosen in HOWS else "new", {})


def only_before(request: Request) -> Response | None:
    """Where to go instead when the node is there already."""
    return go("/") if request.state.web.made else None


def render_name(request: Request, how: str, form: dict[str, str], wrong: str = "", status: int = 200) -> Response:
    """Step 3, again with what was typed when something was wrong with it; never with a secret."""
    typed = form.get("name", "")
    now = whole_moment(datetime.now(), translator(request))
    return render(request, "first/name.html", status=status, step=3, how=how, typed=typed, wrong=wrong, now=now)


async def make(request: Request) -> Response:
    """Make the node and its person, and open them."""
    web: Web = request.state.web
    _ = translator(request)
    if web.made:
        return go("/")
    form, data = await kept_file(request)
    chosen = form.get("how", "new")
    unattended = form.get("protection") == "unattended"
    passphrase = None if unattended else form.get("passphrase", "")
    try:
        if not unattended and passphrase != form.get("again"):
            raise UsageError("the two passphrases differ: type the same twice")
        node = await begin(web, chosen, form, passphrase, data)
    except OutlastError as error:
        return render_name(request, chosen, form, error_line(request, error), error.status)
    person = next(iter(node.people.values()))
    request.state.session.person = person.key
    await node.confirm_clock()  # the page showed the date
    web.take(node)
    await remember(person, LATER)
    await renew_link(person)
    return go("/first/words" if chosen != "join" else "/first/words?join=1")


async def kept_file(request: Request) -> tuple[dict[str, str], bytes]:
    """The fields of step 3, and the backup file when one came with them."""
    if "multipart/form-data" not in request.headers.get("content-type", ""):
        return await fields(request), b""
    file, form = await upload(request, "file")
    return form, await file.read()


class Origin(TypedDict, total=False):
    """Where a person comes from who is not new: the secret of their identity, or an opened backup file."""

    entropy: bytes
    backup: BackupBody


async def newcomer(how: str, form: dict[str, str], data: bytes) -> tuple[str, Origin]:
    """The name of the person whom the form speaks of, and where they come from."""
    match how:
        case "backup":
            body = await run_in_threadpool(open_backup, data, form.get("old", ""))
            return body.name, {"backup": body}
        case "words":
            return form.get("name", ""), {"entropy": entropy_of(form.get("words", ""))}
        case _:
            return form.get("name", ""), {}


async def begin(web: Web, how: str, form: dict[str, str], passphrase: str | None, data: bytes) -> Node:
    """Make a home's node as the form says; returns it open."""
    rooms = tuple(web.site.rooms.values())
    name, origin = await newcomer(how, form, data)
    await Node.create(web.home, name, passphrase=passphrase, rooms=rooms, **origin)
    node = await Node.open(web.home, rooms=rooms)
    if passphrase is not None:
        await node.unlock(passphrase)
    return node


async def words(request: Request) -> Response:
    """Step 4: the six words and the link that this person gives to others."""
    person: Person = request.state.person
    join = "join" in request.query_params
    return render(request, "first/words.html", step=4, words=person.words(), link=kept_link(person), join=join, tabs=[])


async def phone(request: Request) -> Response:
    """Step 5: a phone, over the local network."""
    web: Web = request.state.web
    found = request.state.node.discovery
    return render(request, "first/phone.html", step=5, lan=web.lan, urls=web.lan_urls(), discovery=found, tabs=[])


async def done(request: Request) -> Response:
    """A step was done or put away: it is not offered again."""
    person: Person = request.state.person
    form = await fields(request)
    left = [step for step in steps_left(request) if step != form.get("step") and form.get("step") != "all"]
    await remember(person, left)
    return go("/first/phone" if form.get("step") == "words" and "phone" in left else "/")


def steps_left(request: Request) -> list[str]:
    """The steps of the first run that are neither done nor put away; phones do not see them."""
    person: Person = request.state.person
    return (person.vault.meta(LEFT_ROW) or b"").decode().split() if request.state.door == "localhost" else []


async def remember(person: Person, left: list[str] | tuple[str, ...]) -> None:
    """Keep in the vault which steps are left."""
    await keep(person, LEFT_ROW, " ".join(left).encode())
