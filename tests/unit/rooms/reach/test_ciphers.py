"""Which ciphers a relaying process prefers."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from outlast.rooms.reach.io.ciphers import has_aes

SCRIPT = """
import os, ssl, sys
from outlast.rooms.reach.io.ciphers import settle
settle("reach", "connect")
names = [cipher["name"] for cipher in ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).get_ciphers()]
print(names[0], "OPENSSL_CONF" in os.environ)
"""


def run(*words: str, **environ: str) -> str:
    command = [sys.executable, "-c", SCRIPT, *words]
    base = {name: value for name, value in os.environ.items() if name != "OPENSSL_CONF"}
    return subprocess.run(command, env={**base, **environ}, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(not has_aes(), reason="this processor has no AES")
def test_a_relaying_process_prefers_the_shorter_key_of_aes_and_its_children_do_not_hear_of_it() -> None:
    assert run("reach", "connect") == "TLS_AES_128_GCM_SHA256 False"


def test_any_other_process_is_left_as_it_is() -> None:
    assert run("watch") == run() != "TLS_AES_128_GCM_SHA256 False"


def test_somebodys_own_configuration_of_openssl_stays() -> None:
    assert run("reach", "connect", OPENSSL_CONF=os.devnull).endswith(" True")
