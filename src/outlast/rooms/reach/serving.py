"""Own bridges: what is kept of each in the vault, and the link by which one member uses it. Pure."""

from __future__ import annotations

import base64
from hashlib import sha256
from typing import Literal

import msgspec

from outlast.errors import UsageError
from outlast.rooms.reach.proto.address import Target
from outlast.rooms.reach.proto.bridge import ShadowsocksBridge, WebBridge
from outlast.rooms.reach.proto.links import write_bridge

SHADOWSOCKS_METHOD = "2022-blake3-aes-256-gcm"


class Served(msgspec.Struct, frozen=True):
    """A bridge that this node serves to those who were invited."""

    transport: Literal["web", "ss"]
    listen: str  # "HOST:PORT", where the server listens
    at: Target  # where members find it
    name: str = ""  # web: what TLS and HTTP call it; the host of ``at`` when empty
    site: str = ""  # web: the folder or URL of the site in front of it
    cert: str = ""  # web: files of the certificate and its key; a self-signed one, pinned in links, when empty
    key: str = ""
    pin: bytes = b""  # web: 32 B, SHA-256 of the self-signed certificate's public key
    server_key: bytes = b""  # ss: 32 B
    takes_sync: bool = True  # whether members may reach this node's own sync through it
    label: str = ""

    @property
    def id(self) -> str:
        """16 hex digits: the same address is the same bridge, whatever stands before it."""
        return sha256(f"{self.transport} {self.at.host} {self.at.port}".encode()).hexdigest()[:16]


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
