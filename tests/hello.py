"""What OpenSSL says first to a server of TLS."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from contextlib import suppress


def client_hello(name: str | None = "site.example", protocols: Sequence[str] = ()) -> bytes:
    """The ClientHello, in its record, of a client that asks for ``name`` and offers ``protocols`` (ALPN)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if protocols:
        context.set_alpn_protocols(list(protocols))
    out = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name).do_handshake()
    return out.read()
