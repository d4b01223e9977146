"""Renewing an installed program by a newer release that two of the release keys signed, from a neighbour or a stick."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from outlast.edges.spread import install, signing
from outlast.edges.spread.install import InstallError
from outlast.errors import StorageError, UsageError


class Updated(msgspec.Struct, frozen=True):
    """What is installed from now on; a node that runs goes on with the old version until it is started again."""

    version: str
    words: str
    program: str


def update(source: str) -> Updated:
    """Install the release at ``source``, an address or a folder, beside the one that runs, and change over to it.

    Raises UsageError where this copy was not installed by install.py or the release is no newer one, ProtocolError
    when too few release keys signed it, StorageError when it cannot be fetched or installed.
    """
    into = Path(sys.prefix).parent
    launcher = install.launcher_in(into)
    if install.current(launcher) != Path(sys.prefix).name:
        raise UsageError("this copy was not installed by install.py: renew it the way it came here")
    keys = signing.pinned_keys()
    taken = []

    def accept(manifest: bytes, signatures: bytes) -> None:
        signing.check_renewal(manifest, signatures, keys)
        taken.append(manifest)

    try:
        install.install(source, into, accept)
    except InstallError as error:
        raise StorageError(str(error)) from None
    [manifest] = taken
    return Updated(install.read_manifest(manifest).version, signing.words_of_release(manifest), str(launcher))
