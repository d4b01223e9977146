"""Makes and signs releases: ``python -m outlast.edges.spread.release``, which ``python3 dev.py release`` calls.

Each maintainer makes the folder from the same commit on a machine of their own; equal sources give equal bytes, so the
six words must be equal. Then two of them sign::

    release key FILE              a new key: the secret into FILE, the public half to be pinned is printed
    release make FOLDER           the set of this checkout, for others to install
    release sign FOLDER FILE      this key's signature beside those that are there
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from pathlib import Path

from outlast.edges.spread import shelf, signing
from outlast.edges.spread.install import MANIFEST, SIGNATURES, WHEELS
from outlast.errors import NotFoundError, OutlastError, UsageError
from outlast.kernel import SigningKey


def main(arguments: list[str]) -> int:
    """Carry out one command; the exit status is 0 when it succeeded."""
    parser = argparse.ArgumentParser(prog="dev.py release")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("key").add_argument("file", type=Path)
    commands.add_parser("make").add_argument("folder", type=Path)
    signing_ = commands.add_parser("sign")
    signing_.add_argument("folder", type=Path)
    signing_.add_argument("file", type=Path)
    given = parser.parse_args(arguments)
    try:
        match given.command:
            case "key":
                print(make_key(given.file))
            case "make":
                print(tell(make(given.folder)))
            case _:
                print(tell(sign(given.folder, read_key(given.file))))
    except (OutlastError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def make_key(file: Path) -> str:
    """Write a new secret key into ``file`` (mode 0600), which must not be there; its public half in hex."""
    seed = secrets.token_bytes(32)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as written:
        written.write(f"{seed.hex()}\n")
    return SigningKey.from_seed(seed).public.hex()


def read_key(file: Path) -> SigningKey:
    """The key in ``file``; raises UsageError when it holds none."""
    try:
        seed = bytes.fromhex(file.read_text(encoding="ascii").strip())
    except ValueError:
        seed = b""
    if len(seed) != 32:
        raise UsageError(f"{file} holds no release key: `release key` makes one")
    return SigningKey.from_seed(seed)


def make(folder: Path) -> shelf.Shelf:
    """Write the set of this checkout into ``folder``, which must be empty or new."""
    source = shelf.checkout()
    if source is None:
        raise NotFoundError("releases are made from a checkout")
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty: name a new folder")
    made = shelf.made_shelf(source, shelf.shared_folder() / WHEELS)
    made.write(folder)
    return made


def sign(folder: Path, key: SigningKey) -> shelf.Shelf:
    """Sign the set in ``folder`` after all its files were compared with the manifest."""
    found = shelf.installed_shelf(folder)
    signatures = signing.sign(key, found.manifest, found.signatures)
    (folder / SIGNATURES).write_bytes(signatures)
    return shelf.installed_shelf(folder)


def tell(made: shelf.Shelf) -> str:
    """What a maintainer compares with the others."""
    release, count = made.release, len(signing.read_signatures(made.signatures))
    return (
        f"{MANIFEST} of {release.version}: {release.words}\n"
        f"{count} signatures, {release.signed} of them by keys that are pinned here."
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
