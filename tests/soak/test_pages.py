"""Every page in every language and both themes, by all that is asked of a page; the suite looks at a few of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from outlast.ui.languages import Catalogues
from tests.browser.fit import NARROWEST, SMALL, magnified, speak, too_wide, unreachable
from tests.browser.phone import ARGUMENTS, CHROMIUM, PHONE, Album, phone
from tests.browser.places import NAME, filled
from tests.unit.edges.served import served

pytestmark = pytest.mark.serial


def test_nothing_keeps_anybody_from_any_page(tmp_path: Path, soaking: bool) -> None:
    if not Path(CHROMIUM).exists() and os.environ.get("CI") != "true":
        pytest.skip(f"{CHROMIUM} is not installed here: dev.py test installs it")
    from playwright.sync_api import sync_playwright

    languages = sorted(Catalogues().languages()) if soaking else ["ja"]
    found: list[str] = []
    with (
        served(tmp_path / "a", rooms=None) as node,
        served(tmp_path / "b", name=NAME, rooms=None) as other,
        sync_playwright() as playwright,
    ):
        places = filled(node, other, tmp_path)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for language in languages:
            for dark in (True, False) if soaking else (True,):
                with phone(browser, Album(tmp_path, language), language, node.url, dark=dark) as page:
                    page.enter(node.serving.launch_url)
                    speak(page, language)
                    for path in places if soaking else places[::9]:
                        page.page.set_viewport_size(PHONE)
                        page.go(path)
                        wrong = [*page.barriers(), *page.page.evaluate(SMALL)]
                        if not dark:
                            wrong += [*magnified(page), *unreachable(page)]
                            page.page.set_viewport_size({"width": NARROWEST, "height": 568})
                            wrong += [*too_wide(page), *magnified(page)]
                        found += [f"{language} {'dark' if dark else 'light'} {path}: {one}" for one in wrong]
        browser.close()
    assert found == []
