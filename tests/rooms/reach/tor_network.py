"""A tor network of one's own on loopback: three directory authorities that are its only relays, too.

It has a consensus after about ten seconds. Nothing leaves the machine: its relays would leave for any address, and
nobody asks them for one elsewhere.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.rooms.reach.programs import program

AUTHORITIES = ("athos", "porthos", "aramis")
OR_PORT, DIR_PORT = 9001, 9030
LIMIT_S = 90.0
COMMON = """
TestingTorNetwork 1
AssumeReachable 1
ShutdownWaitLength 0
SafeLogging 0
Log notice stdout
GeoIPFile {root}/none
GeoIPv6File {root}/none
PathsNeededToBuildCircuits 0.67
"""
AUTHORITY = """
AuthoritativeDirectory 1
V3AuthoritativeDirectory 1
ContactInfo nobody
SocksPort 0
ExitRelay 1
ExitPolicyRejectPrivate 0
ExitPolicy accept *:*
IPv6Exit 0
TestingV3AuthInitialVotingInterval 5
TestingV3AuthInitialVoteDelay 2
TestingV3AuthInitialDistDelay 2
V3AuthVotingInterval 10
V3AuthVoteDelay 2
V3AuthDistDelay 2
TestingDirAuthVoteExit *
TestingDirAuthVoteGuard *
TestingMinExitFlagThreshold 0
TestingMinFastFlagThreshold 0
"""


@dataclass
class Running:
    """A tor, and what it has said so far."""

    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)
    _more: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._more:
                self.said.append(line.rstrip())
                self._more.notify_all()
        with self._more:
            self.said.append("ended")
            self._more.notify_all()

    def until(self, pattern: str) -> re.Match[str]:
        """Wait until it says something like this."""

        def found() -> re.Match[str] | bool:
            matches = (re.search(pattern, line) for line in self.said)
            return next((match for match in matches if match), None) or self.said[-1:] == ["ended"]

        with self._more:
            match = self._more.wait_for(found, LIMIT_S)
        assert isinstance(match, re.Match), "\n".join(self.said[-40:])
        return match


@dataclass
class TorNetwork:
    """The network: ``common`` is what every tor's configuration must say to be in it."""

    root: Path
    host: str  # loopback addresses of its own: host + ".1" to ".254"
    common: str = ""
    stack: ExitStack = field(default_factory=ExitStack)
    tors: list[Running] = field(default_factory=list)

    def start(self, name: str, *torrc: str) -> Running:
        """Start a tor of this network with a folder of its own."""
        folder = self.root / name
        folder.mkdir(mode=0o700, exist_ok=True)
        text = "\n".join((self.common, f"DataDirectory {folder}", *torrc))
        (folder / "torrc").write_text(text)
        command = [program("tor"), "--defaults-torrc", "/dev/null", "-f", str(folder / "torrc")]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        self.tors.append(Running(process))
        return self.tors[-1]


@contextmanager
def tor_network(root: Path) -> Iterator[TorNetwork]:
    """Make a network; its consensus is there a few seconds later, which clients wait for."""
    number = os.getpid()
    network = TorNetwork(root, f"127.{64 + number % 64}.{number // 64 % 256}")
    folders = [root / name for name in AUTHORITIES]
    for folder in folders:
        (folder / "keys").mkdir(mode=0o700, parents=True)
        folder.chmod(0o700)
    at = {folder: f"{network.host}.{index}" for index, folder in enumerate(folders, 1)}
    keys = {"-i": "identity_key", "-s": "signing_key", "-c": "certificate"}
    _all(
        [
            *(program("tor-gencert"), "--create-identity-key", "--passphrase-fd", "0", "-m", "1"),
            *("-a", f"{at[folder]}:{DIR_PORT}"),
            *(part for flag, name in keys.items() for part in (flag, f"{folder}/keys/authority_{name}")),
        ]
        for folder in folders
    )
    prints = _all(
        [
            *(program("tor"), "--ignore-missing-torrc", "-f", str(root / "none"), "--list-fingerprint", "--hush"),
            *("--DataDirectory", str(folder), "--Nickname", folder.name, "--ORPort", str(OR_PORT)),
        ]
        for folder in folders
    )
    lines = []
    for folder, printed in zip(folders, prints, strict=True):
        fingerprint = "".join(re.findall(r"\b[0-9A-F]{4}\b", printed.splitlines()[-1]))
        identity = re.search(r"fingerprint (\w{40})", (folder / "keys" / "authority_certificate").read_text())
        assert identity
        assert len(fingerprint) == 40, printed
        lines.append(
            f"DirAuthority {folder.name} orport={OR_PORT} no-v2 v3ident={identity[1]}"
            f" {at[folder]}:{DIR_PORT} {fingerprint}"
        )
    network.common = "\n".join(lines) + COMMON.format(root=root)
    with network.stack:
        for folder in folders:
            address = f"Address {at[folder]}\nORPort {at[folder]}:{OR_PORT}\nDirPort {at[folder]}:{DIR_PORT}"
            network.start(folder.name, f"Nickname {folder.name}", address, AUTHORITY)
        for authority in network.tors:
            authority.until("Bootstrapped 0%")
        yield network


def _all(commands: Iterator[Sequence[str]]) -> list[str]:
    """Run all of them at once; what they printed."""
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for command in commands
    ]
    printed = [process.communicate("passphrase\n")[0] for process in running]
    assert [process.returncode for process in running] == [0] * len(running), printed
    return printed
