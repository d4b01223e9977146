"""Makes ``reach-mux.json``: greetings of the mux, and a session over two outers. Run it as a script."""

from __future__ import annotations

import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from outlast.address import Target
from outlast.rooms.reach.proto.mux import DATA_HEADER_BYTES, Hello, Status, Welcome, write_hello, write_welcome
from outlast.rooms.reach.proto.session import Session


def secret(*names: object) -> bytes:
    """32 bytes that stand for chance."""
    return sha256(b"outlast/vectors/1/" + "/".join(map(str, names)).encode()).digest()


def made() -> dict[str, Any]:
    """The vectors."""
    greetings = []
    for number, (status, counts) in enumerate(
        ((Status.NEW, ()), (Status.RESUMED, ((1, 16_384), (2, 0))), (Status.GONE, ()), (Status.CLOCK, ()))
    ):
        user = secret("user", number)
        hello = Hello(
            session=secret("session", number)[:16],
            new=status is Status.NEW,
            number=number + 1,
            nonce=secret("nonce", number)[:16],
            time_s=1_795_305_912 + number,
            budget_bytes=number * 9_000,
            counts=counts,
        )
        welcome = Welcome(status, 1_795_305_900, tuple((outer, received + 7) for outer, received in counts))
        written = write_hello(hello, user, padding_bytes=11 * number)
        greetings.append(
            {
                "secret": user.hex(),
                "session": hello.session.hex(),
                "new": hello.new,
                "number": hello.number,
                "nonce": hello.nonce.hex(),
                "time_s": hello.time_s,
                "budget_bytes": hello.budget_bytes,
                "counts": [list(count) for count in hello.counts],
                "padding_bytes": 11 * number,
                "hello": written.hex(),
                "status": int(status),
                "welcome_time_s": welcome.time_s,
                "welcome_counts": [list(count) for count in welcome.counts],
                "welcome": write_welcome(welcome, user, written[-32:], padding_bytes=5 * number).hex(),
            }
        )
    return {"greetings": greetings, "session": session(), "first_bytes": first_bytes()}


def first_bytes() -> list[dict[str, Any]]:
    """A stream whose OPEN bears its first bytes: what follows goes on behind them."""
    client = Session(client=True)
    client.line_up(1, 0.0)
    stream = client.open(Target("192.0.2.7", 80), b"first", 0.0)
    assert stream is not None
    opened = b"".join(client.take(1))
    client.room(stream, 0.1)
    client.send(stream, memoryview(bytearray(DATA_HEADER_BYTES) + b" and second"), 11, 0.1)
    sent = (("OPEN", opened), ("DATA", b"".join(client.take(1))))
    return [{"side": "client", "outer": 1, "what": what, "bytes": data.hex()} for what, data in sent]


def session() -> list[dict[str, Any]]:
    """What goes over outers: a stream opens, the first outer is lost under its data, the second carries the rest."""
    client, server = Session(client=True), Session(client=False)
    steps: list[dict[str, Any]] = []

    def written(side: str, machine: Session, outer: int, what: str) -> bytes:
        data = b"".join(machine.take(outer))
        steps.append({"side": side, "outer": outer, "what": what, "bytes": data.hex()})
        return data

    client.line_up(1, 0.0)
    server.line_up(1, 0.0)
    stream = client.open(Target("bread.example", 443), b"", 0.0)
    assert stream is not None
    server.receive(1, memoryview(written("client", client, 1, "OPEN")), 0.1)
    server.accept(stream, 0.1)
    client.receive(1, memoryview(written("server", server, 1, "ACCEPTED")), 0.2)
    for text in (b"first", b" and second"):
        client.room(stream, 0.2)
        client.send(stream, memoryview(bytearray(DATA_HEADER_BYTES) + text), len(text), 0.2)
    data = written("client", client, 1, "DATA, DATA")
    server.receive(1, memoryview(data[: len(data) - 4]), 0.3)
    counts = ((1, server.received_on(1)),)
    client.line_lost(1, 0.4)
    told = client.lost_counts()
    server.line_lost(1, 0.4)
    server.line_up(2, 0.5, counts=told)
    client.line_up(2, 0.5, counts=counts)
    written("client", client, 2, "DATA again, from what the server does not have")
    client.finish(stream, 0.6)
    written("client", client, 2, "FINISH")
    client.reset(stream, 0.7)
    written("client", client, 2, "RESET")
    return steps


def main() -> None:
    """Write the file."""
    Path(__file__).with_name("reach-mux.json").write_text(json.dumps(made(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
