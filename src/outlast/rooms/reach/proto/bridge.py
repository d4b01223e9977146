"""Bridges: ways out, as links say them. Whoever holds such a link can use the bridge, and can have it blocked."""

from __future__ import annotations

import msgspec

from outlast.address import Target


class WebBridge(msgspec.Struct, frozen=True, tag="web"):
    """A website that is a bridge to those who know its secret: ``outlast://bridge/...``."""

    at: Target
    name: str  # what TLS and HTTP call it (SNI, Host)
    secret: bytes  # 32 B, of one user; the path of a day derives from it
    pin: bytes = (
        b""  # 32 B, SHA-256 of the certificate's public key (SPKI); empty: the certificate must be publicly valid
    )
    node: bytes = b""  # 32 B, transport key of the node behind it, if it takes sync
    label: str = ""


class PluggedBridge(msgspec.Struct, frozen=True, tag="plugged"):
    """An Outlast bridge behind a pluggable transport that a child process speaks: ``outlast://bridge/...``."""

    at: Target
    transport: str  # such as "obfs4"
    args: dict[str, str]
    secret: bytes  # 32 B, of one user
    node: bytes = b""
    label: str = ""


class ShadowsocksBridge(msgspec.Struct, frozen=True, tag="ss"):
    """A server of Shadowsocks: ``ss://...`` (SIP002)."""

    at: Target
    method: str
    password: str
    label: str = ""


class TorBridge(msgspec.Struct, frozen=True, tag="tor"):
    """A bridge of Tor, by its line: ``[TRANSPORT] ADDRESS:PORT [FINGERPRINT] [KEY=VALUE]...``; tor runs as a child."""

    at: Target
    transport: str = ""  # empty: none
    fingerprint: str = ""
    args: dict[str, str] = {}


class ProxyBridge(msgspec.Struct, frozen=True, tag="proxy"):
    """Somebody's proxy: ``socks5://[USER:PASSWORD@]HOST:PORT`` or ``http://...``."""

    at: Target
    scheme: str  # "socks5" or "http"
    user: str = ""
    password: str = ""


class Tricks(msgspec.Struct, frozen=True, tag="direct"):
    """No bridge, but the network itself, where cut-up first flights of TLS pass a filter; it hides nothing.

    ``tricks://[NAME@]ADDRESS:PORT/PATH`` names the resolver (RFC 8484) of whom all names are asked.
    """

    at: Target  # the resolver's, an address
    name: str = ""  # what the resolver's certificate says; empty: its address
    path: str = "/dns-query"


Bridge = WebBridge | PluggedBridge | ShadowsocksBridge | TorBridge | ProxyBridge | Tricks
