"""Which ciphers this processor is quick at, and which of TLS 1.3's a relaying process prefers for that.

OpenSSL is told of a preference when the process starts, or never.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

_NAME: Final = "OPENSSL_CONF"
_FILE: Final = str(Path(__file__).with_name("openssl.txt"))


def settle(*marks: str) -> None:
    """Begin this process again with our preference, unless it has that or somebody's own configuration.

    To be called first of all, before anything was opened; nothing happens where ``marks`` are not words of the
    command that started the process. Children of the relay do not inherit the preference.
    """
    told = os.environ.get(_NAME)
    if told == _FILE:
        import ssl

        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # now it has been read
        del os.environ[_NAME]
    elif told is None and set(marks) <= set(sys.orig_argv) and has_aes():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, _NAME: _FILE})


def has_aes() -> bool:
    """Whether the processor has AES of its own; elsewhere ChaCha20 is faster."""
    if sys.platform == "darwin":
        return True
    try:
        known = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return any(
        line.partition(":")[0].strip() in ("flags", "Features") and " aes " in f"{line} " for line in known.splitlines()
    )
