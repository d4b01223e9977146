"""Escaped HTML pages that work without JavaScript, and what a room needs to make them.

A room's ``web`` names a function ``routes() -> list[starlette.routing.Route]``. Its paths begin with
``/<room name>/``. Its templates lie in ``templates/`` beside that module, are found as ``<room name>/x.html``, extend
``page.html`` and fill the blocks ``title`` (never with anybody's words), ``heading`` and ``main``. The same module may
have ``card(request) -> Card`` for the home page, ``headline(request)`` for its first words (a level ``ok``, ``warn`` or
``bad`` and a sentence, or None), and ``news(request) -> News`` for what waits. In templates stand ready:

- ``_("text %(name)s", name=...)`` and ``ngettext(one, many, n)``: the page's language;
- ``{{ csrf }}``: must be the first thing in each ``<form method="post">``;
- ``time(ms)``: a local time as ``<time>``; ``size(bytes)``: how large something is; ``qr(text)``: a QR code with
  ``size`` and ``path``;
- ``door`` (``"localhost"`` or ``"lan"``), ``person``, ``path``, ``fragment``;
- an element with ``id`` and ``data-live`` is brought up to date while the page is open; a form with ``data-live`` is
  sent without leaving the page. Forms stand outside of elements with ``data-live``.

A handler whose form brings a file is marked ``@takes_files(max_bytes)`` and reads it with ``upload``. One that is only
for who sits at the computer that runs the node is marked ``@at_the_computer``, and one whose page all browsers of a
person see alike ``@alike``: while nothing changes it is made once for all of them.
A handler finds ``request.state.node``, ``request.state.person`` and ``request.state.door``. It may raise any
``OutlastError``: the person then sees its one line, with its status.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, wraps
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import quote

import jinja2
from markupsafe import Markup, escape
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from outlast.errors import OutlastError, UsageError
from outlast.ui.languages import PDI, Catalogues, Translation

if TYPE_CHECKING:
    from outlast.kernel import Node, Room

HERE: Final = Path(__file__).parent
STATIC: Final = HERE / "static"
LANGUAGE_COOKIE: Final = "outlast-language"
UPLOAD_MEMORY_BYTES: Final = 1 << 20
FIELDS_MAX: Final = 2000
"""Of a form of text: each contact may be ticked."""
TAKES_BYTES: Final = "takes_bytes"
AT_THE_COMPUTER: Final = "at_the_computer"
ALIKE_S: Final = 1.0
"""So long a page is given out as it was made: what it says about the time is no older."""
ALIKE_MAX: Final = 16
"""So many are kept: one of the longest messages may have a megabyte."""
ENDS: Final = ".!?…。؟"
"""With these sentences end in the languages of the pages."""
Handler = TypeVar("Handler", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Card:
    """A room on the home page: where it leads, its name, one sentence, how many things wait there, and its picture.

    ``icon`` is one of the names in ``templates/macros.html``.
    """

    href: str
    title: str
    text: str
    count: int = 0
    icon: str = "messages"


@dataclass(frozen=True, slots=True)
class Tab:
    """An entry of the bottom bar."""

    href: str
    title: str
    icon: str
    here: bool = False
    count: int = 0  # how many things wait there


@dataclass(frozen=True, slots=True)
class News:
    """How much waits in a room, by the place in the bottom bar; ``quiet``: open pages count it and tell of nothing."""

    counts: Mapping[str, int]
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Qr:
    """A QR code as an SVG path over ``size`` by ``size`` units, quiet zone included."""

    size: int
    path: str


@dataclass(frozen=True, slots=True)
class Made:
    """A page as it was made at a revision of the node and a monotonic time, with ``Site``'s stand-ins in its forms."""

    revision: int
    at_s: float
    html: bytes


@dataclass(slots=True)
class Site:
    """What all pages share: the rooms that exist, their templates, the languages, and pages that were just made."""

    rooms: Mapping[str, "Room"]
    catalogues: Catalogues = field(default_factory=Catalogues)
    notices: Mapping[str, str] = field(default_factory=dict)
    environment: jinja2.Environment = field(init=False)
    pages: dict[tuple[object, ...], "Made"] = field(default_factory=dict)
    stand_in: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    stand_in_once: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    def __post_init__(self) -> None:
        """Set up the templates of the program and of its rooms; escaping is always on."""
        folders = {name: found for name, room in self.rooms.items() if (found := template_folder(room.web))}
        self.environment = jinja2.Environment(
            loader=jinja2.ChoiceLoader(
                [
                    jinja2.FileSystemLoader(HERE / "templates"),
                    jinja2.PrefixLoader({name: jinja2.FileSystemLoader(path) for name, path in folders.items()}),
                ]
            ),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.environment.globals.update(static=static_url, qr=qr, time=time_element, size=size_text)

    def news(self, request: Request) -> News:
        """What waits in all rooms."""
        found = [news(request) for room in self.rooms.values() if (news := web_part(room, "news")) is not None]
        counts = {place: count for one in found for place, count in one.counts.items()}
        return News(counts, any(one.quiet for one in found))

    def tabs(self, path: str, _: Translation, counts: Mapping[str, int]) -> list[Tab]:
        """The bottom bar, with the place of ``path`` marked: four places at most, and only of rooms that exist."""
        places = [("/", _("Home"), "home")]
        if "carry" in self.rooms:
            places += [("/carry/", _("Messages"), "messages"), ("/carry/channels", _("Channels"), "channels")]
        places.append(("/people", _("People"), "people"))
        inside = [href for href, _title, _icon in places if href == path or (href != "/" and path.startswith(href))]
        here = max(inside, key=len, default="")
        return [Tab(*place, here=place[0] == here, count=counts.get(place[0], 0)) for place in places]


def web_part(room: "Room", name: str) -> Callable[[Request], Any] | None:
    """What a room's web module calls so, such as ``card``; None where there is none."""
    module = import_module(room.web.partition(":")[0]) if room.web else None
    part: Callable[[Request], Any] | None = getattr(module, name, None)
    return part


def template_folder(web: str) -> Path | None:
    """The folder ``templates`` beside a room's web module, found without importing it."""
    package = web.partition(":")[0].rpartition(".")[0]
    spec = find_spec(package) if package else None
    places = spec.submodule_search_locations if spec else None
    folder = Path(next(iter(places))) / "templates" if places else None
    return folder if folder and folder.is_dir() else None


def translator(request: Request) -> Translation:
    """The language of this request's page, as the function ``_`` of a handler."""
    translation: Translation = request.state.translation
    return translation


def render(request: Request, template: str, *, status: int = 200, **context: Any) -> HTMLResponse:
    """The page of ``template`` in the visitor's language, or only what changes in it when the page asks for that."""
    state = request.state
    site: Site = state.site
    _ = translator(request)
    person = state.person
    news = site.news(request) if person is not None else News({})
    waits = sum(news.counts.values())
    notice = site.notices.get(request.query_params.get("said", ""), "")
    html = site.environment.get_template(template).render(
        {
            "_": _,
            "ngettext": _.ngettext,
            "language": _.language,
            "direction": _.direction,
            "languages": site.catalogues.languages(),
            "csrf": csrf_fields(state.csrf, state.once),
            # By https a phone gets what the computer gets: what is the owner's asks for the passphrase by itself.
            "door": "lan" if state.door == "lan" else "localhost",
            "secure": state.door == "https",
            "path": request.url.path,
            "person": person,
            "tabs": site.tabs(request.url.path, _, news.counts) if person is not None else [],
            "waits": waits,
            "mark": f"({_.digits(waits)}) " if waits else "",
            "told": "" if news.quiet or not waits else _.ngettext("%(n)d new message", "%(n)d new messages", waits),
            "strip": status_line(state.node, _),
            "fragment": "x-fragment" in request.headers,
            "live": person is not None,
            "revision": state.node.revision if state.node else 0,
            "notice": _(notice),
            "unsent": state.unsent,
        }
        | context
    )
    return HTMLResponse(html, status)


def csrf_fields(token: str, once: str) -> Markup:
    """The hidden fields by which a form proves that it came from a page of this session, and from which one."""
    return Markup('<input type="hidden" name="csrf" value="{}"><input type="hidden" name="once" value="{}">').format(
        token, once
    )


def status_line(node: "Node | None", _: Translation) -> tuple[str, str]:
    """One honest sentence for the strip on each page, after its level: ``ok``, ``warn`` or ``off``."""
    if node is None:
        return "off", _("Nothing is set up here yet.")
    if node.locked:
        return "off", _("Locked. Nothing is read or sent from here.")
    [(_room, own)] = node.status(None)
    if own.reason_code == "disk-full":
        return "bad", _("The disk is full: nothing more can be kept. Make room first.")
    if own.reason_code == "disk-gone":
        return "bad", _("The folder of this node is gone: bring its disk back. What is written meanwhile may be lost.")
    peers = node.peers()
    reached = sum(peer.connected for peer in peers)
    if reached:
        return "ok", _.ngettext("Connected to %(n)d other node.", "Connected to %(n)d other nodes.", reached)
    return "warn" if peers else "off", _("No other node in reach. Messages wait here and can leave by stick or phone.")


def error_line(request: Request, error: OutlastError | None) -> str:
    """What went wrong, as a sentence in the page's language; empty when nothing did."""
    line = translator(request)(error) if error else ""
    return line[:1].upper() + line[1:] + ("." if line and line.rstrip(PDI)[-1:] not in ENDS else "")


def go(path: str, said: str = "") -> RedirectResponse:
    """After a form: the page to see next (303), where the notice with the code ``said`` stands on top."""
    return RedirectResponse(f"{path}?said={said}" if said else path, 303)


async def fields(request: Request) -> dict[str, str]:
    """The text fields of a submitted form, trimmed."""
    form = await request.form(max_files=0, max_fields=FIELDS_MAX)
    return {name: value.strip() for name, value in form.items() if isinstance(value, str)}


async def upload(
    request: Request, name: str, *, memory_bytes: int = UPLOAD_MEMORY_BYTES
) -> tuple[UploadFile, dict[str, str]]:
    """The file in the field ``name`` of a submitted form, and the text fields beside it.

    Above ``memory_bytes`` the file lies on the disk as it came, without a name: what is not sealed must stay below.
    Raises UsageError when there is no file or the form is malformed.
    """
    parser = MultiPartParser(request.headers, request.stream(), max_files=1, max_fields=16)
    parser.spool_max_size = memory_bytes
    try:
        form = await parser.parse()
    except (KeyError, MultiPartException):
        raise UsageError("This page cannot be used like that.") from None
    file = form.get(name)
    if not isinstance(file, UploadFile) or not file.filename:
        raise UsageError("Choose a file first.")
    return file, {key: value.strip() for key, value in form.items() if isinstance(value, str)}


def takes_files(max_bytes: int) -> Callable[[Handler], Handler]:
    """Marks a room's handler whose form may bring so many bytes, instead of the few that a form of text has."""

    def mark(handler: Handler) -> Handler:
        setattr(handler, TAKES_BYTES, max_bytes)
        return handler

    return mark


def at_the_computer(handler: Handler) -> Handler:
    """Marks a room's handler that phones may not use: it shows or changes what must not cross a Wi-Fi in clear."""
    setattr(handler, AT_THE_COMPUTER, True)
    return handler


def alike(handler: Handler) -> Handler:
    """Marks a room's page that all browsers of a person see alike: it is made once for all, while nothing changes.

    The handler may go by the person, the door, the language and the address, and by nothing else of the request. Form
    tokens alone differ from browser to browser; no page bears another one's.
    """

    @wraps(handler)
    async def once(request: Request) -> Response:
        state, site = request.state, request.state.site
        what = (
            state.person.key,
            state.door,
            translator(request).language,
            request.url.path,
            request.url.query,
            "x-fragment" in request.headers,
        )
        revision, now_s = state.node.revision, monotonic()
        made = site.pages.get(what)
        if made is None or made.revision != revision or now_s - made.at_s > ALIKE_S:
            own = state.csrf, state.once
            state.csrf, state.once = site.stand_in, site.stand_in_once
            try:
                answer = await handler(request)
            finally:
                state.csrf, state.once = own
            made = Made(revision, now_s, bytes(answer.body))
            if len(site.pages) >= ALIKE_MAX:
                site.pages.clear()
            site.pages[what] = made
        html = made.html.replace(site.stand_in.encode(), state.csrf.encode())
        return HTMLResponse(html.replace(site.stand_in_once.encode(), state.once.encode()))

    return cast("Handler", once)


def with_camera(request: Request, answer: Response) -> Response:
    """A page whose script may ask for the camera, by the doors where browsers give it to pages: not by plain http."""
    if request.state.door != "lan":
        answer.headers["permissions-policy"] = "camera=(self), microphone=(), geolocation=()"
    return answer


def attachment(name: str) -> dict[str, str]:
    """The headers of a download: stored under ``name``, never shown, and powerless if shown all the same."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in " ._-()") else "_" for c in name)
    other = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='')}"  # RFC 8187
    return {
        "content-disposition": f'attachment; filename="{plain}"{other}',
        "content-security-policy": "default-src 'none'; sandbox",
    }


def qr(text: str) -> Qr:
    """The QR code (ISO/IEC 18004) of ``text`` with the required quiet zone of four units."""
    import segno

    code = segno.make_qr(text, error="l" if len(text) > 300 else "m")
    size = len(code.matrix) + 8
    runs: list[str] = []
    for y, row in enumerate(code.matrix):
        x = 0
        while x < len(row):
            start = x
            while x < len(row) and row[x]:
                x += 1
            if x > start:
                runs.append(f"M{start + 4} {y + 4}h{x - start}v1h-{x - start}z")
            x += 1
    return Qr(size, "".join(runs))


@jinja2.pass_context
def time_element(context: Mapping[str, Any], at_ms: int) -> Markup:
    """A time on the node's clock: the hour when it is today, else the day as well; a dash for one of no calendar."""
    text = moment(at_ms, context["_"])
    if not text:
        return Markup("<time>\u2013</time>")
    # Markup.format would take five times as long, and a page has many times.
    at = datetime.fromtimestamp(at_ms / 1000).astimezone()
    return Markup(f'<time datetime="{at.isoformat(timespec="minutes")}">{escape(text)}</time>')


def moment(at_ms: int, _: Translation) -> str:
    """A time on the node's clock in words: the hour when it is today, else the day as well; nothing for no calendar."""
    try:
        at, now = datetime.fromtimestamp(at_ms / 1000).astimezone(), datetime.now().astimezone()
    except (ValueError, OverflowError, OSError):
        return ""
    clock = f"{at:%H:%M}"
    if at.date() == now.date():
        return _.digits(clock)
    if at.year != now.year:
        return whole_moment(at, _)
    return _.digits(_("%(day)s %(month)s %(clock)s", day=at.day, month=_month(at, _), clock=clock))


def whole_moment(at: datetime, _: Translation) -> str:
    """A time in words, with its day and year."""
    parts = {"day": at.day, "month": _month(at, _), "year": at.year, "clock": f"{at:%H:%M}"}
    return _.digits(_("%(day)s %(month)s %(year)s %(clock)s", **parts))


def _month(at: datetime, _: Translation) -> str:
    return _("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec").split()[at.month - 1]


@jinja2.pass_context
def size_text(context: Mapping[str, Any], size_bytes: int) -> str:
    """How large something is, to two or three digits."""
    from babel.numbers import format_decimal

    _: Translation = context["_"]
    units = (_("%(n)s B"), _("%(n)s KB"), _("%(n)s MB"), _("%(n)s GB"))
    value, place = float(size_bytes), 0
    while value >= 1000 and place < len(units) - 1:
        value, place = value / 1000, place + 1
    rounded = round(value, 1 if place and value < 10 else 0)
    number = format_decimal(rounded, locale=_.language.replace("-", "_"), numbering_system="default")
    return (units[place] % {"n": _.digits(number)}).replace(" ", "\u00a0")


@cache
def static_url(name: str) -> str:
    """The address of a file in ``static/``, with a digest of its content so that it can be kept for ever."""
    digest = sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{digest}/{name}"
