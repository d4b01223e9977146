"""Two NNCP nodes that hand files on, over TCP of loopback and over a directory as over a stick."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LATEST_S = 300


class Nncp:
    """A sender and a receiver that know each other, in a folder of their own."""

    def __init__(self, folder: Path, port: str) -> None:
        """Make their keys; ``port`` is the receiver's."""
        self._folder, self._port = folder, port
        self._names = 0
        self._incoming = folder / "b" / "incoming"
        self._incoming.mkdir(parents=True)
        for name in ("a", "b"):
            (folder / name / "spool").mkdir(parents=True)
        texts = {name: _out("nncp-cfgnew", "-nocomments") for name in ("a", "b")}
        self._ids = {name: _key(text, "id") for name, text in texts.items()}
        for name, other in (("a", "b"), ("b", "a")):
            theirs = " ".join(f"{key}: {_key(texts[other], key)}\n" for key in ("id", "exchpub", "signpub", "noisepub"))
            way = f'addrs: {{tcp: "127.0.0.1:{port}"}}' if name == "a" else f'incoming: "{self._incoming}"'
            text = texts[name].replace("neigh: {", f"neigh: {{\n {other}: {{ {theirs} {way} }}\n", 1)
            (folder / name / "config").write_text(text.replace("/var/spool/nncp", str(folder / name / "spool")))

    def by_tcp(self, files: Sequence[Path]) -> float:
        """Seconds from the first file's being handed to the sender until all of them are whole at the receiver."""
        with self._started("b", "nncp-daemon", "-bind", f"127.0.0.1:{self._port}"):
            _wait_until_it_listens(int(self._port))
            start = time.perf_counter()
            names = self._hand_over(files)
            # A call goes on for some seconds when nothing is left: it is not waited for.
            with self._started("a", "nncp-call", "b"):
                while not self._are_here(names):
                    if time.perf_counter() - start > LATEST_S:
                        raise SystemExit("NNCP did not hand on the files")
                    if any(not one.suffix for one in (self._folder / "b" / "spool" / self._ids["a"] / "rx").glob("?*")):
                        self._run("b", "nncp-toss")
                    time.sleep(0.01)
                return time.perf_counter() - start

    def by_stick(self, files: Sequence[Path]) -> float:
        """The same by way of a directory: written by one, then read by the other."""
        stick = self._folder / f"stick{self._names}"
        stick.mkdir()
        start = time.perf_counter()
        names = self._hand_over(files)
        self._run("a", "nncp-xfer", "-mkdir", "-tx", stick)
        self._run("b", "nncp-xfer", "-rx", stick)
        self._run("b", "nncp-toss")
        seconds = time.perf_counter() - start
        if not self._are_here(names):
            raise SystemExit("NNCP did not hand on the files")
        return seconds

    def _hand_over(self, files: Sequence[Path]) -> list[str]:
        names = []
        for file in files:
            self._names += 1
            names.append(f"file{self._names}")
            self._run("a", "nncp-file", file, f"b:{names[-1]}")
        return names

    def _are_here(self, names: Sequence[str]) -> bool:
        """Whether the files have their names: they get them once they are synced."""
        return all((self._incoming / name).exists() for name in names)

    def _command(self, name: str, program: str, *arguments: str | Path) -> list[str | Path]:
        return [program, "-cfg", self._folder / name / "config", "-quiet", "-noprogress", *arguments]

    def _run(self, name: str, program: str, *arguments: str | Path) -> None:
        done = subprocess.run(self._command(name, program, *arguments), capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{program} failed: {done.stderr}")

    def _started(self, name: str, program: str, *arguments: str | Path) -> _Running:
        return _Running(self._command(name, program, *arguments))


class _Running:
    """A program that is ended with the block."""

    def __init__(self, command: list[str | Path]) -> None:
        self._command = command

    def __enter__(self) -> None:
        self._child = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __exit__(self, *_: Any) -> None:
        self._child.kill()
        self._child.wait()


def _out(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _key(config: str, name: str) -> str:
    """A node's own key: its own stand before those of neighbours."""
    found = re.search(rf"\b{name}: (\S+)", config)
    assert found
    return found[1]


def _wait_until_it_listens(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
