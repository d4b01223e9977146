"""A message from one town to another by commands alone: over a stick there and back, and over TCP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.program import Program, made

TEXT = "Сустрэча ў сем 🕖 -- ля млына"
TRIES = 200

Towns = tuple[Program, Program]


@pytest.fixture
def towns(tmp_path: Path) -> Towns:
    """Ada's and Bela's homes; Ada has Bela's link."""
    ada, bela = made(tmp_path / "ada", "Ada"), made(tmp_path / "bela", "Bela")
    ada.json("contact", "add", bela.json("id")["link"])
    return ada, bela


def until(look: Callable[[], Any]) -> Any:
    """What ``look`` finds as soon as it finds something."""
    for _ in range(TRIES):
        if found := look():
            return found
    raise AssertionError("does not come")


def events(message: dict[str, Any]) -> list[str]:
    return [one["event"] for one in message["custody"]]


def test_a_message_goes_by_stick_and_its_receipt_comes_back(towns: Towns, tmp_path: Path) -> None:
    ada, bela = towns
    ada_id, bela_id = ada.json("id")["id"], bela.json("id")["id"]
    there, back = str(tmp_path / "there.bin"), str(tmp_path / "back.bin")

    sent = ada.json("carry", "send", bela_id, "--", TEXT)
    assert set(sent) == {"id"}
    [message] = ada.json("carry", "sent")
    assert (message["id"], message["to"], message["text"], events(message)) == (sent["id"], bela_id, TEXT, ["kept"])

    assert ada.json("bundle", "write", there, "--to", bela_id)["entries"] == 1
    assert events(ada.json("carry", "sent")[0]) == ["kept", "copied"]
    assert bela.json("bundle", "read", there)["new"] == 1
    assert bela.json("bundle", "read", there)["new"] == 0
    [received] = bela.json("carry", "inbox")
    assert (received["id"], received["from"], received["text"]) == (sent["id"], ada_id, TEXT)
    assert not received["verified"]

    bela.json("bundle", "write", back, "--to", ada_id)
    ada.json("bundle", "read", back)
    assert "received" in events(ada.json("carry", "sent")[0])


def test_a_message_goes_over_tcp_and_is_acknowledged(towns: Towns) -> None:
    ada, bela = towns
    bela_id = bela.json("id")["id"]
    with bela.up("--listen", "127.0.0.1:0", listeners=3) as listening, ada.up():
        ada.json("peer", "add", listening.at["nodes"], bela.json("id")["node"])
        sent = ada.json("carry", "send", bela_id, "--", TEXT)
        [received] = until(lambda: bela.json("carry", "inbox"))
        assert (received["id"], received["text"]) == (sent["id"], TEXT)
        assert until(lambda: "received" in events(ada.json("carry", "sent")[0]))
        [message] = ada.json("carry", "sent")
        assert events(message)[0] == "kept"
        assert len(set(events(message))) == len(events(message))


def test_a_channel_goes_by_an_open_bundle(towns: Towns, tmp_path: Path) -> None:
    ada, bela = towns
    channel = ada.json("carry", "channel", "create", "Mill news")["id"]
    ada.json("carry", "post", channel, "--", TEXT)
    file = str(tmp_path / "news.bin")
    bela.json("carry", "follow", channel)
    assert ada.json("bundle", "write", file, "--space", channel)["entries"] == 2
    assert bela.json("bundle", "read", file)["new"] == 2
    [post] = bela.json("carry", "read", channel)
    assert (post["text"], post["from"]) == (TEXT, ada.json("id")["id"])
