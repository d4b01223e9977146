"""A real browser of a phone's size, and nodes as real processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.phone import ARGUMENTS, CHROMIUM, Album


@pytest.fixture(scope="module")
def playwright() -> Iterator[Any]:
    """Playwright, driving Debian's Chromium; ended with the module, since no other event loop can run beside it."""
    if not Path(CHROMIUM).exists() and os.environ.get("CI") != "true":
        pytest.skip(f"{CHROMIUM} is not installed here: dev.py test installs it")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def chromium(playwright: Any) -> Iterator[Any]:
    """One browser; each test makes its own contexts in it."""
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures are kept: $OUTLAST_SCREENSHOTS, else a folder of this run."""
    named = os.environ.get("OUTLAST_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def album(screenshots: Path, request: pytest.FixtureRequest) -> Album:
    """The pictures of this test."""
    return Album(screenshots, request.node.name)
