"""Programs of others that tests run beside ours; `dev.py test` installs them."""

from __future__ import annotations

import os
import shutil

import pytest


def program(name: str) -> str:
    """The path of a program; without it the test is skipped, with CI=true it fails."""
    path = shutil.which(name)
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is not here: with CI=true nothing is skipped")
        pytest.skip(f"{name} is not here")
    return path
