"""QUIC Initials against the samples of RFC 9001, appendix A, and against what a hostile network may send back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast import tls
from outlast.rooms.watch.proto import quic

CID = bytes.fromhex("8394c8f03e515708")
HELLO = bytes.fromhex(
    "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e86804fe3a47f06a2b69484c000004130113020100"
    "00c000000010000e00000b6578616d706c652e636f6dff01000100000a00080006001d0017001800100007000504616c706e00"
    "05000501000000000033002600"
    "24001d00209370b2c9caa47fbabaf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b0003020304000d0010000e04"
    "03050306030203080408050806002d00020101001c00024001003900320408ffffffffffffffff05048000ffff07048000ffff"
    "0801100104800075300901100f088394c8f03e51570806048000ffff"
)
SERVER_PAYLOAD = bytes.fromhex(
    "02000000000600405a020000560303eefce7f7b37ba1d1632e96677825ddf73988cfc79825df566dc5430b9a045a1200130100"
    "002e00330024001d00209d3c940d89690b84d08a60993c144eca684d1081287c834d5311bcf32bb9da1a002b00020304"
)
SERVER_INITIAL = bytes.fromhex(
    "cf000000010008f067a5502a4262b5004075c0d95a482cd0991cd25b0aac406a5816b6394100f37a1c69797554780bb38cc5a9"
    "9f5ede4cf73c3ec2493a1839b3dbcba3f6ea46c5b7684df3548e7ddeb9c3bf9c73cc3f3bded74b562bfb19fb84022f8ef4cdd9"
    "3795d77d06edbb7aaf2f58891850abbdca3d20398c276456cbc42158407dd074ee"
)
RETRY = bytes.fromhex("ff000000010008f067a5502a4262b5746f6b656e04a265ba2eff4d829058fb3f0f2496ba")


def initial(name: str | None = "www.example.com") -> bytes:
    return quic.client_initial(name, CID, b"theirown", bytes(32), bytes(range(32)))


def test_the_keys_are_those_of_the_rfc() -> None:
    client, server = quic.keys(CID, "client"), quic.keys(CID, "server")
    assert client.key.hex() == "1f369613dd76d5467730efcbe3b1a22d"
    assert client.iv.hex() == "fa044b2f42a3fd3b46fb255c"
    assert client.hp.hex() == "9f50449e04a0e810283a1e9933adedd2"
    assert server.key.hex() == "cf3a5331653c364c88f0f379b6067e37"
    assert server.iv.hex() == "0ac1493ca1905853b0bba03e"
    assert server.hp.hex() == "c206b8d9b9f0f37644430b490eeaa314"


def test_the_clients_sample_is_sealed_as_in_the_rfc() -> None:
    head = bytes.fromhex("c300000001088394c8f03e5157080000")
    packet = quic.seal(head, 2, HELLO.ljust(1162, b"\0"), quic.keys(CID, "client"))
    assert len(packet) == 1200
    assert packet[:54].hex() == (
        "c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11d242b123dc9bd8bab936b47d92ec356c0bab7df5976d"
    )
    assert packet[-16:].hex() == "e221af44860018ab0856972e194cd934"
    assert quic.open_initial(packet, quic.keys(CID, "client")) == HELLO.ljust(1162, b"\0")
    assert tls.read_handshake(HELLO[4:]).server_name == "example.com"


def test_the_servers_sample_opens_and_is_an_answer_to_its_client() -> None:
    assert quic.open_initial(SERVER_INITIAL, quic.keys(CID, "server")) == SERVER_PAYLOAD
    assert quic.read_answer(SERVER_INITIAL, CID, b"") == quic.Answer("initial", hello="server_hello")
    assert tls.read_handshake(SERVER_PAYLOAD[9:]).version == "TLSv1.3"


def test_a_retry_counts_only_with_its_tag() -> None:
    assert quic.read_answer(RETRY, CID, b"").kind == "retry"
    assert quic.read_answer(RETRY[:-1] + b"\0", CID, b"").kind == "invalid"


def test_an_initial_fills_a_datagram_and_names_its_server() -> None:
    packet = initial()
    assert len(packet) == quic.DATAGRAM_MIN_BYTES
    payload = quic.open_initial(packet, quic.keys(CID, "client"))
    assert payload is not None
    hello = tls.read_handshake(payload[4:])
    assert (hello.kind, hello.server_name) == ("client_hello", "www.example.com")


def test_an_initial_without_a_name_names_none() -> None:
    payload = quic.open_initial(initial(None), quic.keys(CID, "client"))
    assert payload is not None
    assert tls.read_handshake(payload[4:]).server_name is None


def test_a_server_that_speaks_other_versions_is_reachable() -> None:
    negotiation = b"\x80" + bytes(4) + b"\x08theirown" + b"\x08" + CID + bytes.fromhex("000000016b3343cf")
    assert quic.read_answer(negotiation, CID, b"theirown") == quic.Answer("version_negotiation", (1, 0x6B3343CF))


@pytest.mark.parametrize("cid", [b"other", b""])
def test_what_does_not_repeat_the_connection_ids_is_no_answer(cid: bytes) -> None:
    assert quic.read_answer(SERVER_INITIAL, CID, b"ours").kind == "invalid"
    negotiation = b"\x80" + bytes(4) + b"\x04ours" + len(cid).to_bytes(1) + cid + bytes(4)
    assert quic.read_answer(negotiation, CID, b"ours").kind == "invalid"


def test_a_closing_server_is_an_answer_with_its_error() -> None:
    close = quic.server_initial(initial(), b"server", b"\x1c\x02\x00\x00".ljust(20, b"\0"))
    assert close is not None
    assert quic.read_answer(close, CID, b"theirown") == quic.Answer("initial", close=2)


@given(st.binary(max_size=200))
def test_any_payload_of_a_server_is_read_to_its_end(payload: bytes) -> None:
    packet = quic.server_initial(initial(), b"server", payload.ljust(20, b"\0"))
    assert packet is not None
    assert quic.read_answer(packet, CID, b"theirown").kind == "initial"


@given(st.binary(max_size=100), st.sampled_from([b"", b"\xc0\0\0\0\1", b"\x80\0\0\0\0", b"\xf0\0\0\0\1\x08theirown"]))
def test_noise_is_no_answer(noise: bytes, start: bytes) -> None:
    assert quic.read_answer(start + noise, CID, b"theirown").kind in ("invalid", "version_negotiation")
