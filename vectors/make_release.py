"""Writes release.json: python vectors/make_release.py

A manifest, its six words, and what counts as signed. A change of the file is a change of the format.
"""

from __future__ import annotations

import json
from hashlib import sha256
from itertools import combinations
from pathlib import Path

from outlast.edges.spread.install import File
from outlast.edges.spread.shelf import write_manifest
from outlast.edges.spread.signing import sign, words_of_release
from outlast.kernel import SigningKey

HERE = Path(__file__).parent
KEYS = [SigningKey.from_seed(sha256(f"outlast/vectors/1/release/{number}".encode()).digest()) for number in range(4)]
PINNED = KEYS[:3]


def main() -> None:
    """Write the file."""
    names = (
        "install.py",
        "requirements.lock",
        "wheels/outlast-1.2.3-py3-none-any.whl",
        "wheels/pip-26.3-py3-none-any.whl",
    )
    manifest = write_manifest("1.2.3", [File(name, len(name), sha256(name.encode()).hexdigest()) for name in names])
    cases = []
    for count in range(4):
        for chosen in combinations(KEYS, count):
            signatures = b""
            for key in chosen:
                signatures = sign(key, manifest, signatures)
            counted = sorted(key.public.hex() for key in chosen if key in PINNED)
            cases.append({"signatures": signatures.decode(), "signed_by": counted, "taken": len(counted) >= 2})
    found = {
        "manifest": manifest.decode(),
        "words": words_of_release(manifest),
        "pinned": [key.public.hex() for key in PINNED],
        "cases": cases,
        "newer_than": {"1.2.2": True, "0.99.0": True, "1.2.3": False, "1.2.10": False, "1.10.0": False, "2.0.0": False},
    }
    (HERE / "release.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
