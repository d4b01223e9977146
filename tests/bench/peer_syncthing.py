"""Two Syncthing nodes on loopback that share a folder both ways, and nothing with anybody else."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

OPTIONS = {
    "globalAnnounceEnabled": "false",
    "localAnnounceEnabled": "false",
    "relaysEnabled": "false",
    "natEnabled": "false",
    "urAccepted": "-1",
    "crashReportingEnabled": "false",
    "autoUpgradeIntervalH": "0",
    "startBrowser": "false",
    "stunServer": "",
    "reconnectionIntervalS": "1",
    "setLowPriority": "false",
}
LATEST_S = 300


class Instance:
    """One of the two, from its keys on."""

    def __init__(self, home: Path, gui: str, port: str) -> None:
        """Make keys; ``gui`` is the port of its page, ``port`` that of its protocol."""
        self.home, self.shared, self.port = home, home / "shared", port
        self.shared.mkdir(parents=True)
        made = ["syncthing", "generate", f"--home={home}", "--no-default-folder"]
        subprocess.run(made, check=True, capture_output=True)
        self._config = ElementTree.parse(home / "config.xml")
        self.id = self._find("device").attrib["id"]
        self._key = self._find("gui/apikey").text or ""
        self._find("gui/address").text = f"127.0.0.1:{gui}"
        self._address = f"http://127.0.0.1:{gui}/rest/"
        self._seen = 0

    def know(self, other: Instance) -> None:
        """Share the folder with the other, and write the configuration."""
        root = self._config.getroot()
        device = ElementTree.SubElement(root, "device", id=other.id, compression="never")
        ElementTree.SubElement(device, "address").text = f"tcp://127.0.0.1:{other.port}"
        folder = ElementTree.SubElement(root, "folder", id="bench", path=str(self.shared), type="sendreceive")
        for one in (self, other):
            ElementTree.SubElement(folder, "device", id=one.id)
        self.keep_to_itself()

    def keep_to_itself(self) -> None:
        """Look for nobody else, and write the configuration."""
        for name, value in OPTIONS.items():
            self._find(f"options/{name}").text = value
        self._find("options/listenAddress").text = f"tcp://127.0.0.1:{self.port}"
        self._config.write(self.home / "config.xml")

    @property
    def command(self) -> list[str]:
        """What serves it."""
        return ["syncthing", "serve", f"--home={self.home}", "--no-browser", "--no-restart", "--no-upgrade"]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Serve until the block ends."""
        child = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            child.terminate()
            child.wait(30)

    def call(self, path: str, method: str = "GET") -> Any:
        """One call of its REST API."""
        request = urllib.request.Request(self._address + path, method=method, headers={"X-API-Key": self._key})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read() or b"null")

    def up(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + 60
        while True:
            try:
                self.call("system/ping")
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def events(self, kinds: str) -> list[dict[str, Any]]:
        """What has happened since the last call, as soon as something has."""
        found: list[dict[str, Any]] = self.call(f"events?events={kinds}&since={self._seen}&timeout=10") or []
        self._seen = max((one["id"] for one in found), default=self._seen)
        return found

    def _find(self, path: str) -> ElementTree.Element:
        found = self._config.find(path)
        assert found is not None, path
        return found


class Syncthing:
    """A sender and a receiver that are connected."""

    def __init__(self, sender: Instance, receiver: Instance) -> None:
        """Both run."""
        self._sender, self._receiver = sender, receiver
        self._names = 0

    def by_tcp(self, files: Sequence[Path]) -> float:
        """Seconds from the files' being in the sender's folder until all of them are whole at the receiver."""
        names = []
        for file in files:
            self._names += 1
            names.append(f"file{self._names}")
            os.link(file, self._sender.shared / names[-1])
        missing, start = set(names), time.perf_counter()
        self._sender.call("db/scan?folder=bench", "POST")
        while missing:
            # They come into its index once they and their names are synced.
            for event in self._receiver.events("LocalIndexUpdated"):
                missing.difference_update(event["data"].get("filenames", ()))
            if time.perf_counter() - start > LATEST_S:
                raise SystemExit("Syncthing did not hand on the files")
        seconds = time.perf_counter() - start
        assert all((self._receiver.shared / name).stat().st_size == files[0].stat().st_size for name in names)
        return seconds


@contextmanager
def syncthing(folder: Path, ports: Sequence[str]) -> Iterator[Syncthing]:
    """Both, connected, with their own folders in ``folder``; they take four ports of loopback."""
    a = Instance(folder / "a", *ports[:2])
    b = Instance(folder / "b", *ports[2:])
    a.know(b)
    b.know(a)
    with ExitStack() as stack:
        for one in (a, b):
            stack.enter_context(one.running())
        for one in (a, b):
            one.up()
        deadline = time.monotonic() + 90
        while not all(
            one.call("system/connections")["connections"][other.id]["connected"] for one, other in ((a, b), (b, a))
        ):
            if time.monotonic() > deadline:
                raise SystemExit("the two nodes of Syncthing did not meet")
            time.sleep(0.1)
        yield Syncthing(a, b)
