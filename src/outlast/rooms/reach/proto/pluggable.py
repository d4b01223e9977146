"""Tor's managed pluggable transports (pt-spec, version 1): a program and its child that disguises for it.

The parent says in the environment what it wants, the child answers in lines on its standard output. ``Demand`` is read
by a child and written by a parent, ``Message`` the other way round; ``Contract`` is the parent's judge of what it
hears. A child is a program that somebody else wrote: what it says is bounded, and it is not believed when it points
elsewhere than to this machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Final, NamedTuple, assert_never
from urllib.parse import quote, unquote, urlsplit

from outlast.address import Target, show
from outlast.errors import ProtocolError, UsageError

VERSION: Final = "1"
LINE_MAX_BYTES: Final = 8192
"""A line of a child; none that is known says more than 1 KiB."""
ENVIRONMENT_MAX: Final = 1 << 16
"""Characters of one variable; more than the names and options of any tor."""
ARGS_MAX_BYTES: Final = 510
"""What user name and password of SOCKS 5 hold together (RFC 1929)."""
ARGS_MAX: Final = 64
TRANSPORTS_MAX: Final = 64
SHOWN_MAX: Final = 200

_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,63}", re.ASCII)
_VERSION: Final = re.compile(r"[!-+\--~]+", re.ASCII)
_KEYWORD: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_SMETHOD_SPECIAL: Final = ",=\\"
_SCHEMES: Final = ("socks5", "socks4a", "http")


class PluggableError(ProtocolError):
    """A child of the other side breaks the contract; the text says which program's word it was."""


class DemandError(UsageError):
    """The environment is not one in which a child can work; ``message`` is what the parent is told."""

    def __init__(self, message: Message) -> None:
        super().__init__(f"the program that started this one asks for what cannot be: {_spoken(message)}")
        self.message = message


class Proxy(NamedTuple):
    """A proxy that all connections must take (TOR_PT_PROXY)."""

    scheme: str  # "socks5", "socks4a" or "http"
    at: Target
    user: str = ""
    password: str = ""


class ClientDemand(NamedTuple):
    """A parent wants SOCKS ports."""

    state: str  # an absolute path of a folder that the child may make and write
    ends_with_stdin: bool
    transports: tuple[str, ...]
    proxy: Proxy | None = None


class ServerDemand(NamedTuple):
    """A parent wants that connections from outside are brought to it."""

    state: str
    ends_with_stdin: bool
    transports: tuple[str, ...]
    or_port: Target | None
    listen: Mapping[str, Target] = {}  # by transport
    options: Mapping[str, Mapping[str, str]] = {}  # by transport
    extended: Target | None = None  # the Extended ORPort (ext_or_port.py)
    cookie: str = ""  # an absolute path, the key of the Extended ORPort


Demand = ClientDemand | ServerDemand


class Version(NamedTuple):
    """The child will speak this version."""

    version: str = VERSION


class VersionError(NamedTuple):
    """The child and the parent know no version in common."""

    text: str = "no-version"


class EnvError(NamedTuple):
    """The child cannot read its environment, and ends."""

    text: str


class ProxyDone(NamedTuple):
    """All connections of the child will take the proxy that the parent named."""


class ProxyError(NamedTuple):
    """The child cannot use the proxy that the parent named, and ends."""

    text: str


class CMethod(NamedTuple):
    """Here is the SOCKS port of a transport."""

    transport: str
    protocol: str  # "socks4" or "socks5"
    at: Target


class CMethodError(NamedTuple):
    """There is no SOCKS port for this transport."""

    transport: str
    text: str


class CMethodsDone(NamedTuple):
    """Of all transports asked for it was said whether there is a SOCKS port."""


class SMethod(NamedTuple):
    """Connections of a transport are taken here."""

    transport: str
    at: Target
    args: Mapping[str, str] = {}  # what a client must know


class SMethodError(NamedTuple):
    """Connections of this transport are not taken."""

    transport: str
    text: str


class SMethodsDone(NamedTuple):
    """Of all transports asked for it was said whether connections are taken."""


class Status(NamedTuple):
    """How the child does, for the parent's eyes."""

    values: Mapping[str, str]


class Log(NamedTuple):
    """A line for the parent's log."""

    severity: str  # error, warning, notice, info, debug
    text: str


Message = (
    Version
    | VersionError
    | EnvError
    | ProxyDone
    | ProxyError
    | CMethod
    | CMethodError
    | CMethodsDone
    | SMethod
    | SMethodError
    | SMethodsDone
    | Status
    | Log
)


def is_name(text: str) -> bool:
    """Whether a transport can be called so (§3.1; here at most 64 characters)."""
    return _NAME.fullmatch(text) is not None


# Arguments: KEY=VALUE, with whatever parts them escaped by a backslash


def encode_args(args: Mapping[str, str]) -> tuple[bytes, bytes]:
    """User name and password that hand a bridge's arguments to a child's SOCKS 5 port (§3.5); raises UsageError."""
    data = ";".join(_pairs(args, ";=\\")).encode()
    if len(data) > ARGS_MAX_BYTES:
        raise UsageError(
            "the arguments of this bridge take %(size)s bytes, and SOCKS carries %(most)s",
            size=len(data),
            most=ARGS_MAX_BYTES,
        )
    return data[:255], data[255:] or b"\0"


def decode_args(user: bytes, password: bytes) -> dict[str, str]:
    """A bridge's arguments from user name and password of SOCKS 5; raises PluggableError."""
    return _read_pairs(_text(user if password == b"\0" else user + password), ";", "the arguments of a bridge")


def _pairs(args: Mapping[str, str], special: str) -> Iterator[str]:
    for key, value in args.items():
        if not key or not (key + value).isprintable():
            raise UsageError("%(key)r is no argument of a transport that can be handed on", key=key[:SHOWN_MAX])
        yield f"{_escape(key, special)}={_escape(value, special)}"


def _escape(text: str, special: str) -> str:
    return "".join("\\" + char if char in special else char for char in text)


def _read_pairs(text: str, separator: str, what: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in _split(text, separator) if text else ():
        key, equals, value = _cut(part, "=")
        if not equals or not key:
            raise PluggableError(f"{what} have a part without KEY=VALUE")
        if len(found) == ARGS_MAX:
            raise PluggableError(f"{what} have more than {ARGS_MAX} parts")
        found.setdefault(_unescape(key, what), _unescape(value, what))
    return found


def _split(text: str, separator: str) -> Iterator[str]:
    rest, more = text, separator
    while more:
        part, more, rest = _cut(rest, separator)
        yield part


def _cut(text: str, separator: str) -> tuple[str, str, str]:
    """Like str.partition, at the first separator that no backslash escapes; what is escaped stays so."""
    at, end = 0, len(text)
    while at < end:
        if text[at] == separator:
            return text[:at], separator, text[at + 1 :]
        at += 2 if text[at] == "\\" else 1
    return text, "", ""


def _unescape(text: str, what: str) -> str:
    plain = re.sub(r"\\(.)", r"\1", text)
    if (len(text) - len(text.rstrip("\\"))) % 2:
        raise PluggableError(f"{what} end with a backslash")
    if not plain.isprintable():
        raise PluggableError(f"{what} have characters that cannot be shown")
    return plain


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise PluggableError("the arguments of a bridge are no UTF-8") from None


# Addresses


def read_address(text: str) -> Target:
    """``ADDRESS:PORT`` or ``[ADDRESS]:PORT`` with an IP address; raises PluggableError."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        colon = ""
    if not colon or not port.isascii() or not port.isdigit() or int(port[:6]) > 65535 or "%" in host:
        raise PluggableError(f"{_shown(text)!r} is no ADDRESS:PORT")
    if bracketed != (address.version == 6):
        raise PluggableError(f"{_shown(text)!r} is no ADDRESS:PORT: only addresses of IPv6 stand in brackets")
    return Target(str(address), int(port))


# The environment: what a parent wants


def read_demand(environ: Mapping[str, str]) -> Demand:
    """What the parent wants, from the variables TOR_PT_... (§3.2); raises DemandError with what is to be answered."""
    variables = {name[7:]: value for name, value in environ.items() if name.startswith("TOR_PT_")}
    if any(len(value) > ENVIRONMENT_MAX for value in variables.values()):
        raise DemandError(EnvError("a variable is too long"))
    if "MANAGED_TRANSPORT_VER" not in variables:
        raise DemandError(EnvError("no TOR_PT_MANAGED_TRANSPORT_VER: this is started by tor, not by a person"))
    versions = variables["MANAGED_TRANSPORT_VER"].split(",")
    if not all(_VERSION.fullmatch(version) for version in versions) or VERSION not in versions:
        raise DemandError(VersionError())
    state = variables.get("STATE_LOCATION", "")
    if not state:
        raise DemandError(EnvError("no TOR_PT_STATE_LOCATION"))
    ends = variables.get("EXIT_ON_STDIN_CLOSE") == "1"
    client, server = "CLIENT_TRANSPORTS" in variables, "SERVER_TRANSPORTS" in variables
    if client == server:
        raise DemandError(EnvError("one of TOR_PT_CLIENT_TRANSPORTS and TOR_PT_SERVER_TRANSPORTS must be set"))
    try:
        if client:
            proxy = variables.get("PROXY", "")
            names = _read_names(variables["CLIENT_TRANSPORTS"])
            return ClientDemand(state, ends, names, read_proxy(proxy) if proxy else None)
        return _read_server(variables, state, ends)
    except PluggableError as error:
        raise DemandError(EnvError(str(error))) from None


def read_proxy(text: str) -> Proxy:
    """The proxy of TOR_PT_PROXY; raises DemandError."""
    try:
        parts = urlsplit(text)
        at = read_address(parts.netloc.rpartition("@")[2])
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
    except (ValueError, PluggableError):
        raise DemandError(ProxyError("TOR_PT_PROXY is not SCHEME://[USER[:PASSWORD]@]ADDRESS:PORT")) from None
    rest = parts.path.strip("/") + parts.query + parts.fragment
    if rest or parts.scheme not in _SCHEMES or not at.port or max(map(len, (user.encode(), password.encode()))) > 255:
        raise DemandError(ProxyError("TOR_PT_PROXY is not SCHEME://[USER[:PASSWORD]@]ADDRESS:PORT"))
    return Proxy(parts.scheme, at, user, password)


def _read_server(variables: Mapping[str, str], state: str, ends: bool) -> ServerDemand:
    names = _read_names(variables["SERVER_TRANSPORTS"])
    or_port = variables.get("ORPORT", "")
    extended, cookie = variables.get("EXTENDED_SERVER_PORT", ""), variables.get("AUTH_COOKIE_FILE", "")
    if not or_port and not extended:
        raise PluggableError("no TOR_PT_ORPORT")
    if extended and not cookie:
        raise PluggableError("no TOR_PT_AUTH_COOKIE_FILE when TOR_PT_EXTENDED_SERVER_PORT set")
    listen: dict[str, Target] = {}
    for pair in filter(None, variables.get("SERVER_BINDADDR", "").split(",")):
        name, _, address = pair.partition("-")
        if name in listen:
            raise PluggableError("TOR_PT_SERVER_BINDADDR names a transport twice")
        listen[name] = read_address(address)
    return ServerDemand(
        state,
        ends,
        names,
        read_address(or_port) if or_port else None,
        listen,
        _read_options(variables.get("SERVER_TRANSPORT_OPTIONS", "")),
        read_address(extended) if extended else None,
        cookie,
    )


def _read_names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    if len(names) > TRANSPORTS_MAX or not all(map(is_name, names)):
        raise PluggableError("a transport has no name that the contract allows")
    return names


def _read_options(text: str) -> dict[str, dict[str, str]]:
    what = "TOR_PT_SERVER_TRANSPORT_OPTIONS"
    options: dict[str, dict[str, str]] = {}
    for part in _split(text, ";") if text else ():
        name, colon, pair = _cut(part, ":")
        if not colon or not is_name(name):
            raise PluggableError(f"{what} is not TRANSPORT:KEY=VALUE;...")
        if len(options) == TRANSPORTS_MAX and name not in options:
            raise PluggableError(f"{what} names more than {TRANSPORTS_MAX} transports")
        known = options.setdefault(name, {})
        if len(known) == ARGS_MAX:
            raise PluggableError(f"{what} have more than {ARGS_MAX} parts")
        for key, value in _read_pairs(pair, ";", what).items():
            known.setdefault(key, value)
    return options


def write_demand(demand: Demand) -> dict[str, str]:
    """The variables that say what is wanted, for a child's environment; raises UsageError."""
    variables = {"MANAGED_TRANSPORT_VER": VERSION, "STATE_LOCATION": demand.state}
    if demand.ends_with_stdin:
        variables["EXIT_ON_STDIN_CLOSE"] = "1"
    match demand:
        case ClientDemand():
            variables["CLIENT_TRANSPORTS"] = ",".join(demand.transports)
            if demand.proxy is not None:
                variables["PROXY"] = write_proxy(demand.proxy)
        case ServerDemand():
            variables["SERVER_TRANSPORTS"] = ",".join(demand.transports)
            variables["EXTENDED_SERVER_PORT"] = ""
            if demand.or_port is not None:
                variables["ORPORT"] = show(demand.or_port)
            if demand.extended is not None:
                variables |= {"EXTENDED_SERVER_PORT": show(demand.extended), "AUTH_COOKIE_FILE": demand.cookie}
            if demand.listen:
                listen = ((name, demand.listen[name]) for name in demand.transports if name in demand.listen)
                variables["SERVER_BINDADDR"] = ",".join(f"{name}-{show(at)}" for name, at in listen)
            if options := [f"{name}:{pair}" for name, args in demand.options.items() for pair in _pairs(args, ":;=\\")]:
                variables["SERVER_TRANSPORT_OPTIONS"] = ";".join(options)
        case other:
            assert_never(other)
    return {f"TOR_PT_{name}": value for name, value in variables.items()}


def write_proxy(proxy: Proxy) -> str:
    """The proxy as TOR_PT_PROXY has it."""
    credentials = f"{_quoted_url(proxy.user)}:{_quoted_url(proxy.password)}@" if proxy.user or proxy.password else ""
    return f"{proxy.scheme}://{credentials}{show(proxy.at)}"


def _quoted_url(text: str) -> str:
    return quote(text, safe="")


# The lines: what a child answers


def write_line(message: Message) -> bytes:
    """The message as a line with its end; what cannot stand in a line is replaced by spaces."""
    return _plain(_spoken(message)).encode("ascii", "replace") + b"\n"


def _spoken(message: Message) -> str:
    match message:
        case Version(version):
            return f"VERSION {version}"
        case VersionError(text):
            return f"VERSION-ERROR {text}"
        case EnvError(text):
            return f"ENV-ERROR {text}"
        case ProxyDone():
            return "PROXY DONE"
        case ProxyError(text):
            return f"PROXY-ERROR {text}"
        case CMethod(transport, protocol, at):
            return f"CMETHOD {transport} {protocol} {show(at)}"
        case CMethodError(transport, text):
            return f"CMETHOD-ERROR {transport} {text}"
        case CMethodsDone():
            return "CMETHODS DONE"
        case SMethod(transport, at, args):
            tail = f" ARGS:{','.join(_pairs(args, _SMETHOD_SPECIAL))}" if args else ""
            return f"SMETHOD {transport} {show(at)}{tail}"
        case SMethodError(transport, text):
            return f"SMETHOD-ERROR {transport} {text}"
        case SMethodsDone():
            return "SMETHODS DONE"
        case Status(values):
            return " ".join(("STATUS", *(f"{key}={_quoted(value)}" for key, value in values.items())))
        case Log(severity, text):
            return f"LOG SEVERITY={severity} MESSAGE={_quoted(text)}"
        case other:
            assert_never(other)


def read_line(line: bytes) -> Message | None:
    """A child's line, without its end; None for a keyword that is not known; raises PluggableError."""
    if len(line) > LINE_MAX_BYTES:
        raise PluggableError("a line is too long")
    text = line.decode("ascii", "replace")
    keyword, _, rest = text.partition(" ")
    if not _KEYWORD.fullmatch(keyword):
        raise PluggableError(f"{_shown(text)!r} is no line of the contract")
    match keyword:
        case "VERSION":
            return Version(_shown(rest))
        case "VERSION-ERROR":
            return VersionError(_shown(rest))
        case "ENV-ERROR":
            return EnvError(_shown(rest))
        case "PROXY" if rest == "DONE":
            return ProxyDone()
        case "PROXY-ERROR":
            return ProxyError(_shown(rest))
        case "CMETHOD":
            return _read_client_method(rest)
        case "CMETHOD-ERROR":
            return CMethodError(*_read_method_error(rest))
        case "CMETHODS" if rest == "DONE":
            return CMethodsDone()
        case "SMETHOD":
            return _read_server_method(rest)
        case "SMETHOD-ERROR":
            return SMethodError(*_read_method_error(rest))
        case "SMETHODS" if rest == "DONE":
            return SMethodsDone()
        case "STATUS":
            return Status(dict(_read_values(rest)))
        case "LOG":
            values = dict(_read_values(rest))
            if not {"SEVERITY", "MESSAGE"} <= values.keys():
                raise PluggableError("a line of LOG lacks SEVERITY or MESSAGE")
            return Log(_shown(values["SEVERITY"]), _shown(values["MESSAGE"]))
    return None


def _read_client_method(text: str) -> CMethod:
    match text.split(" "):
        case [name, "socks4" | "socks5" as protocol, address, *_] if is_name(name):
            return CMethod(name, protocol, _port_of(address))
    raise PluggableError(f"CMETHOD {_shown(text)!r} is not TRANSPORT PROTOCOL ADDRESS:PORT")


def _read_server_method(text: str) -> SMethod:
    match text.split(" "):
        case [name, address, *options] if is_name(name):
            args: dict[str, str] = {}
            for option in options:
                if option.startswith("ARGS:"):
                    args = _read_pairs(option[5:], ",", "the arguments of SMETHOD")
            return SMethod(name, _port_of(address), args)
    raise PluggableError(f"SMETHOD {_shown(text)!r} is not TRANSPORT ADDRESS:PORT")


def _port_of(text: str) -> Target:
    at = read_address(text)
    if not at.port:
        raise PluggableError("a method has no port")
    return at


def _read_method_error(text: str) -> tuple[str, str]:
    name, _, why = text.partition(" ")
    if not is_name(name):
        raise PluggableError("an error of a method names no transport")
    return name, _shown(why)


_VALUE: Final = re.compile(r'([A-Za-z0-9_-]+)=(?:"((?:[^"\\]|\\.)*)"|([^ "]*))(?: +|$)', re.ASCII)


def _read_values(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(text):
        found = _VALUE.match(text, at)
        if found is None:
            raise PluggableError(f"{_shown(text[at:])!r} is not KEY=VALUE")
        key, quoted, bare = found.groups()
        yield key, bare if quoted is None else re.sub(r"\\([0-7]{1,3}|.)", _unquote, quoted)
        at = found.end()


def _unquote(found: re.Match[str]) -> str:
    char = found[1]
    if char[0] in "01234567":
        return chr(int(char, 8) & 0xFF)
    return {"n": "\n", "r": "\r", "t": "\t"}.get(char, char)


def _quoted(text: str) -> str:
    plain = _plain(text)
    return plain if re.fullmatch(r"[!#-\[\]-~]+", plain) else '"' + re.sub(r'(["\\])', r"\\\1", plain) + '"'


def _plain(text: str) -> str:
    return "".join(char if " " <= char <= "~" else " " for char in text)


def _shown(text: str) -> str:
    """A stranger's words for a person: one line of printable ASCII, and not long."""
    return _plain(text.strip())[:SHOWN_MAX]


# The parent's judge


class Contract:
    """What a child has promised so far, from its lines; whatever breaks the contract raises PluggableError.

    ``methods`` are complete once ``ready``; of the transports ``wanted`` that are not there ``errors`` says why.
    """

    def __init__(self, demand: Demand) -> None:
        self._demand = demand
        self._agreed = False
        self._proxied = False
        self.ready = False
        self.methods: dict[str, CMethod | SMethod] = {}
        self.errors: dict[str, str] = {}

    def take(self, line: bytes) -> Status | Log | None:
        """Take one line without its end; what only informs is returned."""
        message = read_line(line)
        match message:
            case None:
                pass
            case Status() | Log():
                return message
            case VersionError(text) | EnvError(text) | ProxyError(text):
                raise PluggableError(f"it cannot work here: {text}")
            case Version(version):
                if version != VERSION:
                    raise PluggableError(f"it speaks version {version!r} of the contract")
                self._agreed = True
            case _ if not self._agreed or self.ready:
                raise PluggableError("it names methods out of turn")
            case ProxyDone():
                self._proxied = True
            case CMethod() | CMethodError() | CMethodsDone() if isinstance(self._demand, ServerDemand):
                raise PluggableError("it takes itself for a client")
            case SMethod() | SMethodError() | SMethodsDone() if isinstance(self._demand, ClientDemand):
                raise PluggableError("it takes itself for a server")
            case CMethod() | SMethod():
                self._take_method(message)
            case CMethodError(transport, text) | SMethodError(transport, text):
                if transport in self._demand.transports:
                    self.errors[transport] = text
            case CMethodsDone() | SMethodsDone():
                self._finish()
            case other:
                assert_never(other)
        return None

    def _take_method(self, method: CMethod | SMethod) -> None:
        name = method.transport
        if name not in self._demand.transports:
            return
        if name in self.methods:
            raise PluggableError(f"it names {name} twice")
        if isinstance(method, CMethod):
            # Whoever listens there learns the bridge and its key; that must not be another machine.
            if not ip_address(method.at.host).is_loopback:
                raise PluggableError(f"its port for {name} is not on this machine")
            if method.protocol != "socks5":
                self.errors[name] = "it speaks SOCKS 4 only"
                return
        self.methods[name] = method

    def _finish(self) -> None:
        if isinstance(self._demand, ClientDemand) and self._demand.proxy is not None and not self._proxied:
            raise PluggableError("it does not say that it will use the proxy")
        for name in self._demand.transports:
            if name not in self.methods:
                self.errors.setdefault(name, "it does not know this transport")
        self.ready = True
