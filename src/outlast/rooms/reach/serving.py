"""Own bridges: what is kept of each in the vault, and the link by which one member uses it. Pure."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal

import msgspec

from outlast import address
from outlast.address import Target
from outlast.errors import UsageError
from outlast.rooms.reach.io.relay import Server, ShadowsocksServer
from outlast.rooms.reach.io.web_bridge import WebServer
from outlast.rooms.reach.proto.bridge import ShadowsocksBridge, WebBridge
from outlast.rooms.reach.proto.links import write_bridge

SHADOWSOCKS_METHOD: Final = "2022-blake3-aes-256-gcm"
FOLDER: Final = Path("rooms") / "reach"
"""In the home: the keys of certificates that a bridge signs itself."""


class Served(msgspec.Struct, frozen=True):
    """A bridge that this node serves to those who were invited."""

    transport: Literal["web", "ss"]
    listen: str  # "HOST:PORT", where the server listens
    at: Target  # where members find it
    name: str = ""  # web: what TLS and HTTP call it; the host of ``at`` when empty
    site: str = ""  # web: the folder or URL of the site in front of it
    cert: str = ""  # web: files of the certificate and its key; without, and without ``acme``, it signs its own
    key: str = ""
    site_tls: str = ""  # web: HOST:PORT where the site's own server speaks TLS: it answers what is no TLS
    acme: str = ""  # web: URL of an authority's directory, which gives the certificate
    http: str = ""  # web: HOST:PORT where that authority looks; port 80 when empty
    pin: bytes = b""  # web: 32 B, SHA-256 of the self-signed certificate's public key
    server_key: bytes = b""  # ss: 32 B
    takes_sync: bool = True  # whether members may reach this node's own sync through it
    label: str = ""

    @property
    def id(self) -> str:
        """16 hex digits: the same address is the same bridge, whatever stands before it."""
        return sha256(f"{self.transport} {self.at.host} {self.at.port}".encode()).hexdigest()[:16]


def server_of(served: Served, secrets: Sequence[bytes], home: Path) -> Server:
    """What the relaying process is told of an own bridge, with the secrets (32 B) of those who are on it."""
    listen = address.read(served.listen)
    match served.transport:
        case "web":
            certificate = (served.cert, served.key) if served.cert else None
            name = served.name or served.at.host
            return WebServer(
                listen,
                name,
                served.site,
                tuple(secrets),
                str(home / FOLDER / served.id),
                certificate,
                served.site_tls,
                served.acme,
                address.read(served.http) if served.http else None,
            )
        case "ss":
            password = base64.b64encode(served.server_key).decode()
            # With no user at all the server's own key, which former members know, would let in.
            nobody = sha256(b"outlast/reach/nobody/1" + served.server_key).digest()
            users = tuple(secrets) or (nobody,)
            return ShadowsocksServer(listen, served.at.host, SHADOWSOCKS_METHOD, password, users)


def link_for(served: Served, secret: bytes, node: bytes) -> str:
    """The link of the member with this secret (32 B); ``node`` (32 B) is the transport key behind it, or empty."""
    match served.transport:
        case "web":
            name = served.name or served.at.host
            return write_bridge(WebBridge(served.at, name, secret, served.pin, node, served.label))
        case "ss":
            if len(served.server_key) != 32:
                raise UsageError("this bridge has no key: stop serving it, and serve it anew")
            # SIP022 with identity headers: the server's key, then the member's.
            password = ":".join(base64.b64encode(key).decode() for key in (served.server_key, secret))
            return write_bridge(ShadowsocksBridge(served.at, SHADOWSOCKS_METHOD, password, served.label))
