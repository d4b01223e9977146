"""Bridges as text: what people send one another, and how each form of it is written here.

Read are ``outlast://bridge/`` (docs/spec/reach-links.md), ``ss://`` as SIP002 and as it was before, bridge lines of
Tor, proxies as ``socks5://`` and ``http://``, and ``tricks://`` for no bridge at all. Each bridge has one canonical
text, and its id is the hash of that. Whoever has a link has the bridge: no text of an error repeats a secret.
"""

from __future__ import annotations

import base64
import binascii
import re
from contextlib import suppress
from hashlib import sha256
from ipaddress import ip_address
from typing import Any, Final, assert_never
from urllib.parse import quote, unquote

import msgspec

from outlast.address import Target, show
from outlast.errors import Sentence, UsageError
from outlast.rooms.reach.proto.bridge import (
    Bridge,
    PluggedBridge,
    ProxyBridge,
    ShadowsocksBridge,
    TorBridge,
    Tricks,
    WebBridge,
)

LINK_MAX_CHARS: Final = 2000
TEXT_MAX_CHARS: Final = 32_000
"""Characters of a text that may hold several bridges."""
LINK_VERSION: Final = 1
LABEL_MAX_CHARS: Final = 60
ID_CHARS: Final = 16
KEY_BYTES_2022: Final = {
    "2022-blake3-aes-128-gcm": 16,
    "2022-blake3-aes-256-gcm": 32,
    "2022-blake3-chacha20-poly1305": 32,
}
"""Methods of SIP022 and the size of their keys."""
METHODS: Final = frozenset({"aes-128-gcm", "aes-192-gcm", "aes-256-gcm", "chacha20-ietf-poly1305", *KEY_BYTES_2022})
"""Methods of Shadowsocks that are taken: SIP004's and SIP022's."""

_PREFIX: Final = "outlast://bridge/"
_FORMS: Final = Sentence(
    "outlast://bridge/, ss://, socks5:// or http://, or is a line of Tor's with an address and a port"
)
# What mail programs and people put around a link. A line of Tor's may begin with a square bracket.
_AROUND: Final = "<>(){}\"'`“”„«»"
_BEHIND: Final = _AROUND + ".,;:!"
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*)://", re.ASCII | re.IGNORECASE)
# Where another link may begin: at a line, in a list as Tor's QR codes have it (['...', '...']), and at a scheme that
# is no value of the link before (url=https://).
_PIECES: Final = re.compile(
    r"""[\r\n]+|\[['"]|['"],\s*['"]|['"]\]|(?=(?<![a-z0-9+.=-])[a-z][a-z0-9+.-]*://)""", re.ASCII | re.IGNORECASE
)
_ENDPOINT: Final = r"([0-9.]{7,15}|\[[0-9a-f:.]+\]):[0-9]+"
_BEGINNING: Final = re.compile(
    rf"\W*[a-z][a-z0-9+.-]*://|\W*(bridge:?\s+)?(\w+\s+)?{_ENDPOINT}\s+(\$?[0-9a-f]{{40}}\b|[\w-]+=)",
    re.ASCII | re.IGNORECASE,
)
_BARE: Final = re.compile(rf"\s*{_ENDPOINT}\s*$", re.ASCII | re.IGNORECASE)
_NAME: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*", re.ASCII)
_TRANSPORT: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,63}", re.ASCII)
_FINGERPRINT: Final = re.compile(r"\$?([0-9a-fA-F]{40})", re.ASCII)
_ARGUMENT_KEY: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}", re.ASCII)
_PATH: Final = re.compile(r"/([A-Za-z0-9._~/-]{0,199}[A-Za-z0-9_~/-])?", re.ASCII)
_OBFS4_CERT_BYTES: Final = 20 + 32  # the node's id and its public key


class _Web(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag="web"):
    host: str
    port: int
    name: str
    secret: bytes
    pin: bytes
    node: bytes
    label: str


class _Plugged(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, tag="plugged"):
    host: str
    port: int
    transport: str
    args: list[tuple[str, str]]  # in the order of their keys
    secret: bytes
    node: bytes
    label: str


def read_bridges(text: str) -> tuple[list[Bridge], list[UsageError]]:
    """The bridges in a text as people pass them on: an answer of Tor's with three lines, a post with links and prose.

    And what is wrong with those links in it that are none; prose is passed over. A text with one bridge is read as
    ``read_bridge`` reads it, in several lines too. Raises UsageError where there is no bridge at all.
    """
    if len(text) > TEXT_MAX_CHARS:
        raise UsageError("this text is too long: give at most %(most)s characters at once", most=TEXT_MAX_CHARS)
    parts = _PIECES.split(text)
    # A lone address may be a bridge of Tor's, but beside links it is rather where one of them is wrapped.
    pieces = [one for one in parts if _BEGINNING.match(one)] or [one for one in parts if _BARE.match(one)]
    if len(pieces) < 2:
        try:
            return [read_bridge(text)], []
        except UsageError:
            if not pieces:
                raise
    found: list[Bridge] = []
    wrong: list[UsageError] = []
    for piece in pieces:
        try:
            found.append(_read_piece(piece))
        except UsageError as error:
            wrong.append(error)
    if not found:
        raise wrong[0]
    return found, wrong


def _read_piece(piece: str) -> Bridge:
    try:
        return read_bridge(piece)
    except UsageError:
        # Words may stand behind a link that is in one piece; a line of Tor's has several by itself.
        if _SCHEME.match(piece):
            with suppress(UsageError):
                return read_bridge(piece.split()[0])
        raise


def read_bridge(text: str) -> Bridge:
    """The bridge that a text names; white space and what people put around links is passed over.

    Raises UsageError, with one line that says what is wrong and never repeats a secret.
    """
    if len(text) > 4 * LINK_MAX_CHARS:
        raise _too_long()
    text = "".join(c if c.isprintable() else " " * c.isspace() for c in text).strip()
    if text[:1] in _AROUND:
        text = text.strip(_AROUND).strip()
    scheme = _SCHEME.match(text.lstrip("["))
    if scheme is None:
        bridge: Bridge = _read_line(text)
    else:
        text = text.lstrip("[")
        match scheme[1].lower():
            case "outlast":
                bridge = _read_own(text)
            case "ss":
                bridge = _read_shadowsocks(text[scheme.end() :])
            case "socks5" | "socks5h":
                bridge = _read_proxy("socks5", text[scheme.end() :])
            case "socks":
                bridge = _read_socks(text[scheme.end() :])
            case "http":
                bridge = _read_proxy("http", text[scheme.end() :])
            case "tricks":
                bridge = _read_tricks(text[scheme.end() :])
            case "ssconf":
                raise UsageError("an ssconf:// link only says where a link is; ask for the ss:// link itself")
            case other:
                raise UsageError(
                    "%(scheme)s:// is no way out that Outlast has; a bridge begins with %(forms)s",
                    scheme=other[:20],
                    forms=_FORMS,
                )
    if len(_to_text(bridge)) > LINK_MAX_CHARS:
        raise _too_long()
    return bridge


def write_bridge(bridge: Bridge) -> str:
    """The canonical text of a bridge: ``read_bridge`` gives an equal one. Raises UsageError for one that has none."""
    text = _to_text(_checked(bridge))
    if len(text) > LINK_MAX_CHARS:
        raise _too_long()
    return text


def bridge_id(bridge: Bridge) -> str:
    """16 hex digits of SHA-256 of the canonical text without its label: may stand in logs, and tells nothing else."""
    if isinstance(bridge, WebBridge | PluggedBridge | ShadowsocksBridge):
        bridge = msgspec.structs.replace(bridge, label="")
    return sha256(write_bridge(bridge).encode()).hexdigest()[:ID_CHARS]


def label_of(text: str) -> str:
    """What of a text can be a bridge's label: printable, at most 60 characters, no marks around it."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text[:LABEL_MAX_CHARS].strip(_BEHIND + "[] ")


def host_of(text: str) -> str:
    """A host as it is written here: an address in its shortest form, a name in small letters.

    Raises UsageError for what is neither; names of other alphabets must come in their ASCII form.
    """
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        address = ip_address(bare)
    except ValueError:
        pass
    else:
        if "%" not in bare:
            return str(address)
    name = bare.lower().removesuffix(".")
    if not name.isascii():
        raise UsageError(
            "the bridge's host is written in another alphabet; write its ASCII form, which begins with xn--"
        )
    if len(name) > 253 or not _NAME.fullmatch(name) or name.rpartition(".")[2].isdigit():
        raise UsageError("the bridge's host is neither a name nor an address; copy the link whole")
    return name


def _too_long() -> UsageError:
    return UsageError("a bridge's link has at most %(most)s characters", most=LINK_MAX_CHARS)


def _damaged() -> UsageError:
    return UsageError("this link is incomplete or damaged; copy it whole")


def _target(text: str) -> Target:
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        raise UsageError(
            "the bridge's link names no port; it has a host and a port, as in 192.0.2.1:443 or [2001:db8::1]:443"
        )
    return Target(host_of(host), _port(port))


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text, re.ASCII) or not 0 < int(text) < 65536:
        raise UsageError("the bridge's port is no number from 1 to 65535; copy the link whole")
    return int(text)


def _unbase64(text: str) -> bytes | None:
    data = text.rstrip("=").replace("+", "-").replace("/", "_")
    try:
        return base64.b64decode(data.encode() + b"=" * (-len(data) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeError):
        return None


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _unquote(text: str) -> str:
    try:
        found = unquote(text, errors="strict")
    except UnicodeError:
        raise _damaged() from None
    if not found.isprintable():
        raise _damaged()
    return found


# ---- each form ----


def _read_own(text: str) -> Bridge:
    text = "".join(c for c in text if c not in " =").strip(_BEHIND + "[]")
    if text[: len(_PREFIX)].lower() != _PREFIX:
        raise UsageError("this link of Outlast is no bridge: one begins with %(prefix)s", prefix=_PREFIX)
    raw = _unbase64(text[len(_PREFIX) :])
    try:
        fields = msgspec.msgpack.decode(raw or b"", type=list[Any])
        if fields and isinstance(fields[0], int) and fields[0] > LINK_VERSION:
            raise UsageError("this bridge link was made by a newer Outlast: update this one to read it")
        body = msgspec.convert(fields[1:], type=_Web | _Plugged)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise _damaged() from None
    if fields[0] != LINK_VERSION:
        raise _damaged()
    at = Target(body.host, body.port)
    if isinstance(body, _Web):
        return _checked(WebBridge(at, body.name, body.secret, body.pin, body.node, label_of(body.label)))
    args = dict(body.args)
    if len(args) != len(body.args):
        raise _damaged()
    return _checked(PluggedBridge(at, body.transport, args, body.secret, body.node, label_of(body.label)))


def _read_shadowsocks(rest: str) -> Bridge:
    rest, _, tag = rest.partition("#")
    rest = "".join(rest.split()).rstrip(_BEHIND + "[]")
    rest, _, query = rest.partition("?")
    user, at, where = rest.rpartition("@")
    if at:
        for pair in query.split("&"):
            key, _, value = pair.partition("=")
            plugin = _unquote(value).partition(";")[0] if key.lower() == "plugin" else ""
            if plugin not in ("", "none"):
                raise UsageError(
                    "this ss:// link needs the plugin %(plugin)r, which Outlast does not run; ask for one without",
                    plugin=plugin[:40],
                )
        # The form of SIP022 is told from the older one by the colon, which base64 has not.
        account = _unquote(user)
        if ":" not in user:
            account = _text_of(_unbase64(account))
    else:
        account, at, where = _text_of(_unbase64(rest.rstrip("/"))).rpartition("@")
        if not at:
            raise _damaged()
    method, colon, password = account.partition(":")
    if not colon:
        raise _damaged()
    target = _target(where.rstrip("/"))
    return _checked(ShadowsocksBridge(target, method.lower(), password, label_of(unquote(tag))))


def _text_of(data: bytes | None) -> str:
    try:
        text = (data or b"").decode()
    except UnicodeError:
        text = ""
    if not text or not text.isprintable():
        raise _damaged()
    return text


def _read_proxy(scheme: str, rest: str) -> Bridge:
    rest = "".join(rest.split()).partition("#")[0].rstrip(_BEHIND + "[]")
    account, at, where = rest.rpartition("@")
    user, _, password = account.partition(":")
    if re.search(r"/.|\?", where):
        raise UsageError(
            "this is the address of a page; a proxy's has only a host and a port, as in http://192.0.2.1:3128"
        )
    if at and not user:
        raise UsageError("this link has a password and no user")
    return _checked(ProxyBridge(_target(where.rstrip("/")), scheme, _unquote(user), _unquote(password)))


def _read_socks(rest: str) -> Bridge:
    # As v2rayN and its kin write it: user and password in base64, where others have them percent-encoded.
    account, at, where = rest.partition("@")
    if at and ":" not in account:
        user, colon, password = _text_of(_unbase64(_unquote(account))).partition(":")
        account = quote(user, safe="") + colon + quote(password, safe="")
    return _read_proxy("socks5", account + at + where)


def _read_tricks(rest: str) -> Bridge:
    rest = "".join(rest.split()).rstrip(_BEHIND + "[]")
    authority, slash, path = rest.partition("/")
    name, _, where = authority.rpartition("@")
    return _checked(Tricks(_target(where), name and host_of(name), slash + path or "/dns-query"))


def _read_line(text: str) -> Bridge:
    words = text.split()
    if words and words[0].lower() in ("bridge", "bridge:"):
        del words[0]
    transport = ""
    if words and _TRANSPORT.fullmatch(words[0]):
        transport = words.pop(0)
    if not words or not re.fullmatch(r".*:[0-9]+[.,;]?", words[0], re.ASCII):
        raise UsageError("this is no bridge: one begins with %(forms)s", forms=_FORMS)
    if len(words) == 1 or "=" not in words[-1]:
        words[-1] = words[-1].rstrip(_BEHIND)
    at = _target(words.pop(0))
    fingerprint = ""
    if words and "=" not in words[0]:
        found = _FINGERPRINT.fullmatch(words.pop(0))
        if not found:
            raise UsageError("the fingerprint in this Tor line has not its 40 digits; copy the whole line")
        fingerprint = found[1].upper()
    args: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key in args:
            raise UsageError("this Tor line has something else where KEY=VALUE belongs; copy the whole line")
        args[key] = value
    return _checked(TorBridge(at, transport, fingerprint, args))


def _checked(bridge: Bridge) -> Bridge:
    """The bridge in its one form; raises UsageError for one that cannot be."""
    if not 0 < bridge.at.port < 65536:
        raise UsageError("the bridge's port is no number from 1 to 65535")
    at = Target(host_of(bridge.at.host), bridge.at.port)
    match bridge:
        case WebBridge():
            name = host_of(bridge.name)
            _check_keys(bridge.secret, bridge.pin, bridge.node)
            return msgspec.structs.replace(bridge, at=at, name=name, label=label_of(bridge.label))
        case PluggedBridge():
            _check_keys(bridge.secret, b"", bridge.node)
            if not _TRANSPORT.fullmatch(bridge.transport):
                raise _damaged()
            args = _check_args(bridge.transport, bridge.args)
            return msgspec.structs.replace(bridge, at=at, args=args, label=label_of(bridge.label))
        case ShadowsocksBridge():
            password = _check_password(bridge.method, bridge.password)
            return msgspec.structs.replace(bridge, at=at, password=password, label=label_of(bridge.label))
        case TorBridge():
            if not _is_address(at.host):
                raise UsageError("a Tor line has an IP address and a port, no name; copy the whole line")
            if bridge.args and not bridge.transport:
                raise UsageError("this Tor line has arguments and no transport; copy the whole line")
            return msgspec.structs.replace(bridge, at=at, args=_check_args(bridge.transport, bridge.args))
        case Tricks():
            if not _is_address(at.host):
                raise UsageError("tricks:// needs the address of a resolver, as in tricks://192.0.2.1:443/dns-query")
            if not _PATH.fullmatch(bridge.path):
                raise _damaged()
            return msgspec.structs.replace(bridge, at=at, name=bridge.name and host_of(bridge.name))
        case ProxyBridge():
            if bridge.scheme not in ("socks5", "http"):
                raise UsageError("a proxy's link begins with socks5:// or http://")
            if max(len(bridge.user.encode()), len(bridge.password.encode())) > 255:
                raise UsageError("a proxy's user and password have at most 255 bytes each")
            return msgspec.structs.replace(bridge, at=at)
        case never:
            assert_never(never)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _check_keys(secret: bytes, pin: bytes, node: bytes) -> None:
    if len(secret) != 32 or len(pin) not in (0, 32) or len(node) not in (0, 32):
        raise _damaged()


def _check_args(transport: str, args: dict[str, str]) -> dict[str, str]:
    for key, value in args.items():
        if not _ARGUMENT_KEY.fullmatch(key) or not value.isascii() or not value.isprintable() or " " in value:
            raise UsageError("this bridge has something else where KEY=VALUE belongs; copy it whole")
    if transport == "obfs4" and not ("node-id" in args and "public-key" in args):
        if "cert" not in args:
            raise UsageError("this obfs4 bridge has no cert=...; copy the whole line")
        if len(_unbase64(args["cert"]) or b"") != _OBFS4_CERT_BYTES:
            raise UsageError("the cert=... of this obfs4 bridge is incomplete; copy the whole line")
    return dict(sorted(args.items()))


def _check_password(method: str, password: str) -> str:
    if method not in METHODS:
        raise UsageError(
            "Outlast does not speak this link's method of Shadowsocks; "
            "ask for a link with aes-256-gcm, chacha20-ietf-poly1305 or 2022-blake3-aes-256-gcm"
        )
    size = KEY_BYTES_2022.get(method)
    if size is None:
        if not password:
            raise UsageError("this ss:// link has no password; copy it whole")
        return password
    # Several keys are for servers of many users (SIP023): the server's first, the user's last.
    keys = [_unbase64(key) or b"" for key in password.split(":")]
    if any(len(key) != size for key in keys):
        raise UsageError(
            "the key in this ss:// link is not the %(size)s bytes of %(method)s; copy it whole",
            size=size,
            method=method,
        )
    return ":".join(base64.b64encode(key).decode() for key in keys)


def _to_text(bridge: Bridge) -> str:
    match bridge:
        case WebBridge(at, name, secret, pin, node, label):
            return _own(_Web(at.host, at.port, name, secret, pin, node, label))
        case PluggedBridge(at, transport, args, secret, node, label):
            return _own(_Plugged(at.host, at.port, transport, sorted(args.items()), secret, node, label))
        case ShadowsocksBridge(at, method, password, label):
            if method in KEY_BYTES_2022:
                account = f"{method}:{quote(password, safe='')}"
            else:
                account = _base64(f"{method}:{password}".encode())
            return f"ss://{account}@{show(at)}" + (f"#{quote(label, safe='')}" if label else "")
        case TorBridge(at, transport, fingerprint, args):
            words = [transport, show(at), fingerprint, *(f"{key}={value}" for key, value in sorted(args.items()))]
            return " ".join(filter(None, words))
        case Tricks(at, name, path):
            return f"tricks://{name and show((name, 0), 0) + '@'}{show(at)}{path}"
        case ProxyBridge(at, scheme, user, password):
            account = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user else ""
            return f"{scheme}://{account}{show(at)}"
        case never:
            assert_never(never)


def _own(body: _Web | _Plugged) -> str:
    fields = [LINK_VERSION, *msgspec.to_builtins(body, builtin_types=(bytes,))]
    return _PREFIX + _base64(msgspec.msgpack.encode(fields))
