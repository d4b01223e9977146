"""A phone opens pages, each for the first time: headless Chromium, slowed down. Run by bench_page where the pages are.

Reads a line of JSON for each, [address], and answers a line of JSON: {"first_ms", "largest_ms", "requests", "bytes",
"plain_bytes"}. The first two are milliseconds from the start of the navigation to the first and to the largest
contentful paint (W3C Paint Timing; Largest Contentful Paint); bytes are those on the wire, plain ones uncompressed. An
address with `?t=` is Outlast's launch link: its token is handed in before, and what is opened is the page behind it.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import sync_playwright

from tests.bench.bench_kernel import answers
from tests.browser.phone import ARGUMENTS, CHROMIUM, PHONE

SLOWER: Final = 6
NETWORK: Final = {
    "offline": False,
    "latency": 20,
    "downloadThroughput": 5_000_000 / 8,
    "uploadThroughput": 5_000_000 / 8,
}
LATEST_S: Final = 90.0
WATCHED_S: Final = 25.0
"""How long a page is watched: kind to a peer whose largest paint comes later still."""
PAINTS: Final = """
    window.painted = {first: null, largest: null};
    new PerformanceObserver(seen => { painted.first = seen.getEntries()[0].startTime; })
        .observe({type: "paint", buffered: true});
    new PerformanceObserver(seen => { painted.largest = seen.getEntries().at(-1).startTime; })
        .observe({type: "largest-contentful-paint", buffered: true});
"""


def visit(browser: Any, url: str) -> dict[str, float]:
    """Open a page with nothing in the cache, and watch what it paints."""
    context = browser.new_context(viewport=PHONE)
    try:
        if token := parse_qs(urlsplit(url).query).get("t"):
            url = url.partition("?")[0]
            context.request.post(f"{url}enter", form={"token": token[0]})
        page = context.new_page()
        page.add_init_script(PAINTS)
        told = context.new_cdp_session(page)
        told.send("Network.enable")
        told.send("Network.emulateNetworkConditions", NETWORK)
        told.send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
        counts = {"requests": 0, "bytes": 0, "plain_bytes": 0}

        def add(name: str, number: int) -> None:
            counts[name] += number

        told.on("Network.requestWillBeSent", lambda _: add("requests", 1))
        told.on("Network.dataReceived", lambda data: add("plain_bytes", data["dataLength"]))
        told.on("Network.loadingFinished", lambda done: add("bytes", int(done["encodedDataLength"])))
        page.goto(url, wait_until="commit", timeout=LATEST_S * 1000)
        page.wait_for_timeout(WATCHED_S * 1000)
        seen = dict(counts)
        told.send("Emulation.setCPUThrottlingRate", {"rate": 1})  # a busy page would not answer for minutes
        painted = page.evaluate("painted")
        assert painted["first"] is not None, "nothing was painted"
        return {"first_ms": painted["first"], "largest_ms": painted["largest"], **seen}
    finally:
        context.close()


def main() -> None:
    """Visit what is asked for until nothing more is."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for line in sys.stdin:
            (url,) = json.loads(line)
            answers(url)
            print(json.dumps(visit(browser, url)), flush=True)
        browser.close()


if __name__ == "__main__":
    main()
