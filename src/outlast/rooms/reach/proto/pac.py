"""The file by which a browser or a phone is told of its proxy (PAC): everything to the gate, and nothing past it."""

from __future__ import annotations

from typing import Final

from outlast.address import Target, show

PATH: Final = "/proxy.pac"
MEDIA_TYPE: Final = "application/x-ns-proxy-autoconfig"


def url(at: Target) -> str:
    """Where a gate that is reached there has its proxy file."""
    return f"http://{show(at)}{PATH}"


def pac(host: str, port: int) -> bytes:
    """The file for a gate at that address.

    It names no second choice: without the gate nothing loads, instead of going out unprotected. ``PROXY`` is what every
    browser and phone understands, and with it names are looked up at the far end.
    """
    return f'function FindProxyForURL(url, host) {{ return "PROXY {show((host, port))}"; }}\n'.encode("ascii")
