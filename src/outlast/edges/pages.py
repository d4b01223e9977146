"""The pages of the node itself: doorway, home, backup, settings, help. The rooms bring their own."""

import gzip
from datetime import datetime
from functools import cache
from typing import Final
from urllib.parse import parse_qs, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outlast.edges import first_run, hotspot, household, people, phones, sneakernet, space
from outlast.edges.doors import same
from outlast.edges.events import events
from outlast.edges.gate import LAN_SETTING, Access, ForbiddenError, StrangerError, Web, let_in, route
from outlast.edges.https import pages as trust
from outlast.edges.spread import get
from outlast.edges.stick import service as sticks
from outlast.errors import LockedError, NotFoundError, OutlastError, Sentence, UsageError
from outlast.kernel import BACKUP_MAX_BYTES, Node, Person, count_backup, let_go_of_carried, open_backup
from outlast.ui.languages import marked
from outlast.ui.page import (
    LANGUAGE_COOKIE,
    STATIC,
    Card,
    attachment,
    error_line,
    fields,
    go,
    render,
    status_line,
    translator,
    upload,
    web_part,
)

STATIC_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
HELP: Final = ("blackout", "travel", "stick", "hotspot", "phone", "verify", "passphrase", "safety")
NOTICES: Final = {
    **people.NOTICES,
    **phones.NOTICES,
    **household.NOTICES,
    **trust.NOTICES,
    **sneakernet.NOTICES,
    **hotspot.NOTICES,
    **get.NOTICES,
    "locked": marked("Locked."),
    "carried-gone": marked("Let go of. The space is free."),
    "clock": marked("Thank you. What is over will be deleted again."),
}


def routes() -> list[Route]:
    """All routes of the node's own pages."""
    return [
        route("/", "GET", home, Access.OPEN),
        route("/enter", "POST", enter, Access.OPEN),
        route("/language", "POST", choose_language, Access.OPEN),
        route("/unlock", "POST", unlock, Access.SESSION),
        route("/leave", "POST", leave, Access.SESSION),
        route("/events", "GET", events, Access.PERSON),
        route("/static/{digest}/{name}", "GET", static, Access.OPEN),
        route("/more", "GET", more, Access.PERSON),
        route("/help", "GET", help_index, Access.OPEN),
        route("/help/{topic}", "GET", help_topic, Access.OPEN),
        route("/space", "GET", space_page, Access.PERSON),
        route("/space/carried", "POST", let_go_of_files, Access.OWNER),
        route("/backup", "GET", backup, Access.OWNER),
        route("/backup/file", "POST", backup_file, Access.OWNER),
        route("/backup/test", "POST", backup_test, Access.OWNER, BACKUP_MAX_BYTES),
        route("/backup/words", "POST", backup_words, Access.OWNER),
        route("/backup/shares", "POST", backup_shares, Access.OWNER),
        route("/settings", "GET", settings, Access.PERSON),
        route("/settings/lan", "POST", set_lan, Access.OWNER),
        route("/settings/clock", "POST", confirm_clock, Access.OWNER),
        route("/settings/lock", "POST", lock, Access.OWNER),
        route("/settings/wipe", "POST", wipe, Access.HOST),
        *first_run.routes(),
        *people.routes(),
        *phones.routes(),
        *household.routes(),
        *trust.routes(),
        *sneakernet.routes(),
        *hotspot.routes(),
        *get.routes(),
    ]


# ---- coming in ----


async def doorway(request: Request, *, status: int = 200, wrong: str = "") -> Response:
    """What a visitor sees who was not let in, or whose vault is locked; the first run, where there is none yet."""
    web: Web = request.state.web
    session = request.state.session
    if session is not None and not session.waiting_code and not web.made:
        return go(first_run.first_page(request))
    if session is not None and session.door != "lan" and not session.waiting_code:
        return render(request, "unlock.html", status=status, wrong=wrong)
    return render(
        request,
        "doorway.html",
        status=status,
        wrong=wrong,
        token=request.query_params.get("t", ""),
        locked=web.made and len(web.node.people) < len(web.home.people()),
        passphrase=opens_by_passphrase(web),
    )


def opens_by_passphrase(web: Web) -> bool:
    """Whether a passphrase proves anything here: an unattended vault takes none."""
    return any(web.home.needs_passphrase(person) for person in web.home.people())


async def enter(request: Request) -> Response:
    """Let a browser in that proves to be the owner's: by the launch token, or by the passphrase."""
    web: Web = request.state.web
    _ = translator(request)
    door = request.state.door
    if door == "lan":
        raise StrangerError("Nobody let this browser in yet.")
    form = await fields(request)
    person = ""
    if door == "localhost" and (given := form.get("token", "")):
        token = parse_qs(urlsplit(given).query).get("t", [given])[0]
        if not same(token, web.launch):
            web.try_secret("token")
            line = _("That is not the token of this start: the terminal shows the present one.")
            return await doorway(request, status=401, wrong=line)
    else:
        try:
            person = (await try_passphrase(web, form.get("passphrase", ""), f"enter {door}")).key
        except LockedError as error:
            return await doorway(request, status=error.status, wrong=error_line(request, error))
    answer = go("/")
    await let_in(request, answer, person)
    return answer


async def try_passphrase(web: Web, passphrase: str, what: str) -> Person:
    """The person whose vault this passphrase opens; raises LockedError when it opens none, TooOftenError.

    ``what`` as in ``Web.try_secret``.
    """
    if not opens_by_passphrase(web):
        raise LockedError("no passphrase opens this node: use the link from the terminal")
    web.try_secret(what)
    person = await web.node.unlock(passphrase)
    web.tries.forgive(what)
    return person


async def unlock(request: Request) -> Response:
    """Open a vault by its passphrase."""
    if request.state.door == "lan":
        raise ForbiddenError("This is done at the computer that runs the node, not over Wi-Fi.")
    web: Web = request.state.web
    form = await fields(request)
    session = request.state.session
    try:
        person = await try_passphrase(web, form.get("passphrase", ""), f"unlock {session.person}")
    except LockedError as error:
        return await doorway(request, status=error.status, wrong=error_line(request, error))
    if session.door == "https" and session.person != person.key:
        return await doorway(request, status=403, wrong=translator(request)("That opens another vault than yours."))
    answer = go("/")
    if session.person not in ("", person.key):  # nothing that one wrote on an old page is sent by another
        await web.end(session)
        await let_in(request, answer, person.key)
    else:
        session.person = person.key
    return answer


async def leave(request: Request) -> Response:
    """Log this browser out."""
    await request.state.web.end(request.state.session)
    answer = go("/")
    answer.delete_cookie(request.state.door_cookie, path="/")
    return answer


async def choose_language(request: Request) -> Response:
    """Remember the language of this browser."""
    form = await fields(request)
    back = form.get("back", "/")
    answer = go(back if back.startswith("/") and not back.startswith(("//", "/\\")) else "/")
    if form.get("language") in request.state.site.catalogues.languages():
        year_s = 31_536_000
        answer.set_cookie(LANGUAGE_COOKIE, form["language"], max_age=year_s, httponly=True, samesite="strict", path="/")
    return answer


async def static(request: Request) -> Response:
    """A file of the pages, kept by the browser until its content changes."""
    name = request.path_params["name"]
    kind = STATIC_TYPES.get(name.rpartition(".")[2])
    if kind is None or name not in {path.name for path in STATIC.iterdir()}:
        raise NotFoundError("There is no such page here.")
    headers = {"cache-control": "public, max-age=31536000, immutable", "vary": "accept-encoding"}
    plain, smaller = static_bytes(name)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(smaller, media_type=kind, headers=headers | {"content-encoding": "gzip"})
    return Response(plain, media_type=kind, headers=headers)


@cache
def static_bytes(name: str) -> tuple[bytes, bytes]:
    """A file in ``static/``, as it is and by gzip: the same for everybody, so its size gives nothing away.

    Pages are not compressed: their size would tell how much of a stranger's words stands in somebody else's, too.
    """
    plain = (STATIC / name).read_bytes()
    return plain, gzip.compress(plain, mtime=0)


# ---- the start page ----


async def home(request: Request) -> Response:
    """A card for each room, and what is left of the first steps; for strangers the doorway."""
    web: Web = request.state.web
    if request.state.person is None:
        # A newcomer's first look is no error; an open page that asks for news must learn that it is shut out.
        shut = 423 if request.state.session else 401 if "x-fragment" in request.headers else 200
        return phones.waiting(request) or await doorway(request, status=shut)
    person: Person = request.state.person
    return render(
        request,
        "home.html",
        strip=headline(request),
        cards=room_cards(request),
        left=first_run.steps_left(request),
        waiting=sneakernet.waiting_to_leave(person),
        plugged=[medium.name for medium in await sticks.found_media(person)],
        alone=not person.contacts(),
        device=person.device_state if request.state.door == "localhost" else "ok",
        doubts=doubts(web.node) if request.state.door == "localhost" else [],
    )


def headline(request: Request) -> tuple[str, str]:
    """How it is, as far as known: the internet, who is in reach, how messages leave; after the level of the worst."""
    _ = translator(request)
    node: Node = request.state.node
    level, reach = status_line(node, _)
    if level == "bad":
        return level, reach
    parts = [web_part(room, "headline") for room in request.state.site.rooms.values()]
    known = [one for part in parts if part is not None and (one := part(request)) is not None]
    if reached := sum(peer.connected for peer in node.peers()):
        leave = _.ngettext("Messages leave through it.", "Messages leave through them.", reached)
        known.append((level, f"{reach} {leave}"))
    elif waiting := sneakernet.waiting_to_leave(request.state.person):
        leave = _.ngettext(
            "%(n)d message waits here and can leave by stick or phone.",
            "%(n)d messages wait here and can leave by stick or phone.",
            waiting,
        )
        nobody = _("No other node in reach.")
        known.append((level, f"{nobody} {leave}"))
    else:
        known.append((level, reach))
    worst = max((one for one, _text in known), key=("off", "ok", "warn", "bad").index)
    return worst, " ".join(text for _level, text in known)


def doubts(node: Node) -> list[Sentence]:
    """What the owner is to look at before the date is believed, a line each."""
    return [line for line in (node.clock_warning(), node.pruning_stopped()) if line]


def room_cards(request: Request) -> list[Card]:
    """The cards of the rooms that have one."""
    rooms = request.state.site.rooms.values()
    return [card(request) for room in rooms if (card := web_part(room, "card")) is not None]


async def more(request: Request) -> Response:
    """The places that the bottom bar has no room for."""
    return render(request, "more.html")


async def help_index(request: Request) -> Response:
    """What there is to read without internet."""
    return render(request, "help.html", topic="")


async def help_topic(request: Request) -> Response:
    """One page of help."""
    topic = request.path_params["topic"]
    if topic not in HELP:
        raise NotFoundError("There is no such page here.")
    return render(request, "help.html", topic=topic)


# ---- space on disk ----


async def space_page(request: Request) -> Response:
    """What fills the disk, and what of it may go."""
    found, parts = await space.look(request.state.node, request.state.person)
    carried = sum(one.bytes for one in parts if one.kind == "carried")
    return render(request, "space.html", found=found, parts=parts, carried=carried)


async def let_go_of_files(request: Request) -> Response:
    """Let go of the files that are carried for others."""
    if (await fields(request)).get("sure") != "on":
        raise UsageError("Nothing was deleted: say that you are sure.")
    await let_go_of_carried(request.state.node)
    return go("/space", "carried-gone")


# ---- backup ----


async def backup(request: Request) -> Response:
    """The backup file, its trial, and the 24 words."""
    return render_backup(request)


def render_backup(request: Request, **said: object) -> Response:
    """The backup page with the answer to one of its forms."""
    context: dict[str, object] = {"counts": None, "words": None, "wrong": "", "at": ""} | said
    status = 400 if context["wrong"] else 200
    passphrase = request.state.web.home.needs_passphrase(request.state.person.key)
    return render(request, "backup.html", status=status, passphrase=passphrase, **context)


async def backup_file(request: Request) -> Response:
    """Download everything that makes this person, sealed under a passphrase."""
    _ = translator(request)
    person: Person = request.state.person
    form = await fields(request)
    passphrase = form.get("passphrase", "")
    try:
        if passphrase != form.get("again"):
            raise UsageError("the two passphrases differ: type the same twice")
        data = await person.backup(passphrase)
    except UsageError as error:
        return render_backup(request, wrong=error_line(request, error), at="file")
    return download(data, f"outlast-{datetime.now():%Y-%m-%d}.backup")


def download(data: bytes, name: str) -> Response:
    """Bytes as a file that the browser stores and never shows."""
    return Response(data, media_type="application/octet-stream", headers=attachment(name))


async def backup_test(request: Request) -> Response:
    """Open a backup file and say what it holds, without restoring anything."""
    file, form = await upload(request, "file")
    request.state.web.try_secret(f"backup {request.state.person.key}")
    try:
        body = await run_in_threadpool(open_backup, await file.read(), form.get("passphrase", ""))
    except OutlastError as error:
        return render_backup(request, wrong=error_line(request, error), at="test")
    return render_backup(request, counts=count_backup(body), at="test")


async def backup_words(request: Request) -> Response:
    """Show the 24 words, after the passphrase where there is one."""
    wrong = await not_proven(request, await fields(request), "words")
    if wrong:
        return render_backup(request, wrong=wrong, at="words")
    person: Person = request.state.person
    return render_backup(request, words=person.secret_words(), at="words")


async def backup_shares(request: Request) -> Response:
    """Show shares of the 24 words to be printed or written down, after the passphrase where there is one."""
    form = await fields(request)
    wrong = await not_proven(request, form, "shares")
    if wrong:
        return render_backup(request, wrong=wrong, at="shares")
    person: Person = request.state.person
    numbers = [form.get(name, "") for name in ("threshold", "count")]
    try:
        if not all(number.isascii() and number.isdigit() and len(number) < 3 for number in numbers):
            raise UsageError("say how many shares there are to be, and how many of them are enough")
        shares = person.secret_shares(*map(int, numbers))
    except UsageError as error:
        return render_backup(request, wrong=error_line(request, error), at="shares")
    return render(request, "shares.html", shares=shares, threshold=int(numbers[0]), name=person.name, live=False)


async def not_proven(request: Request, form: dict[str, str], what: str) -> str:
    """Why the form's passphrase does not show that the person sits there; empty when it does or none is needed."""
    web: Web = request.state.web
    person: Person = request.state.person
    _ = translator(request)
    if web.home.needs_passphrase(person.key):
        try:
            opened = await try_passphrase(web, form.get("passphrase", ""), f"{what} {person.key}")
        except LockedError as error:
            return error_line(request, error)
        if opened is not person:
            return _("That opens another vault than yours.")
    return ""


# ---- settings ----


async def settings(request: Request) -> Response:
    """Language, the door for phones, locking, wiping."""
    web: Web = request.state.web
    node: Node = request.state.node
    return render(
        request,
        "settings.html",
        lan=web.lan,
        urls=web.lan_urls(),
        doubts=doubts(node),
        unattended=not web.home.needs_passphrase(request.state.person.key),
        others=len(web.home.people()) - 1,
        wrong="",
    )


async def set_lan(request: Request) -> Response:
    """Open or close the door for phones, now and at the next start."""
    web: Web = request.state.web
    form = await fields(request)
    await switch_lan(web, form.get("lan") == "on")
    back = form.get("back", "")
    return go(back if back in ("/phones", "/first/phone") else "/settings")


async def switch_lan(web: Web, on: bool) -> None:
    """Open or close the door for phones and remember it in the store."""
    if web.switch_lan is None:
        raise UsageError("this node was started without a door for phones")
    await web.switch_lan(on)
    store = web.node.open_store
    await web.node.write(lambda: store.set_meta(LAN_SETTING, b"1" if on else b"0"))


async def confirm_clock(request: Request) -> Response:
    """The owner says that today's date is right."""
    node: Node = request.state.node
    await node.confirm_clock()
    return go("/" if (await fields(request)).get("back") == "/" else "/settings", "clock")


async def lock(request: Request) -> Response:
    """Close the vault and the store; every page is locked from now on."""
    web: Web = request.state.web
    node, person = web.node, request.state.person
    if not web.home.needs_passphrase(person.key):
        raise ForbiddenError("This node has no passphrase: there is nothing to lock it with.")
    # The node goes on for the others whose vaults are open.
    await (node.lock() if len(node.people) == 1 else node.lock_person(person.key))
    return go("/", "locked")


async def wipe(request: Request) -> Response:
    """Destroy the keys and files of this node after the word was typed; the process ends."""
    web: Web = request.state.web
    _ = translator(request)
    form = await fields(request)
    # Translators: the word that a person types to confirm that everything is to be deleted; capital letters.
    if form.get("word", "").upper() != _("WIPE").upper():
        raise UsageError("Nothing was deleted: type the word exactly as it is shown.")
    await web.node.wipe()
    return render(request, "wiped.html", tabs=[], live=False, person=None)
