"""`outlast --help` answers before the heavy libraries are read; `dev.py bench start` times it."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = {"apsw", "argon2", "babel", "cryptography", "jinja2", "nacl", "numpy", "pyhpke"}
HEAVY |= {"starlette", "uvicorn", "zeroconf", "zxingcpp", "multipart"}
PROBE = """
import json, sys
from outlast.edges.main import main
sys.argv = ["outlast", "--help"]
try:
    main()
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def test_help_is_answered_without_the_heavy_libraries() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True)
    assert "Usage" in done.stdout, done.stderr
    assert HEAVY & set(json.loads(done.stderr.splitlines()[-1])) == set()
