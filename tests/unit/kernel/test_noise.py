"""Handshakes against published vectors, another implementation and hostile bytes; framing."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import accumulate, pairwise, permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_scalarmult_base as public_of
from noise.connection import Keypair, NoiseConnection

from outlast.errors import ProtocolError
from outlast.kernel.noise import (
    HANDSHAKE_MAX_BYTES,
    MESSAGE_MAX_BYTES,
    PLAINTEXT_MAX_BYTES,
    FrameError,
    FrameReader,
    Handshake,
    HandshakeError,
    Pattern,
    Preamble,
    Transport,
    accept_version,
    choose_version,
    encode_frame,
    encode_preamble,
    link_prologue,
    parse_preamble,
)

VECTORS = json.loads((Path(__file__).parents[3] / "vectors" / "noise.json").read_text())
NAMES = {
    Pattern.XK: "Noise_XK_25519_ChaChaPoly_SHA256",
    Pattern.XXPSK0: "Noise_XXpsk0_25519_ChaChaPoly_SHA256",
    Pattern.XX: "Noise_XX_25519_ChaChaPoly_SHA256",
}
PATTERNS = {name: pattern for pattern, name in NAMES.items()}

# The points of X25519 whose multiples by any clamped scalar are zero, non-canonical encodings
# included (orders 1, 2, 4 and 8 on the curve and its twist; RFC 7748 §6.1, §7).
_P = 2**255 - 19
_ORDER_8 = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)
LOW_ORDER = [
    (point | top).to_bytes(32, "little") for point in (0, 1, _P - 1, _P, _P + 1, *_ORDER_8) for top in (0, 1 << 255)
]

keys = st.binary(min_size=32, max_size=32)
patterns = st.sampled_from(Pattern)
payloads = st.binary(max_size=100)

IS, IE, RS, RE, PSK = (bytes([n]) * 32 for n in range(1, 6))


def both(
    pattern: Pattern,
    *,
    prologue: bytes = b"p",
    statics: tuple[bytes, bytes] = (IS, RS),
    ephemerals: tuple[bytes, bytes] = (IE, RE),
    psk: bytes = PSK,
) -> tuple[Handshake, Handshake]:
    """Initiator and responder that should understand each other."""
    shared = {"prologue": prologue, "psk": psk if pattern is Pattern.XXPSK0 else None}
    known = public_of(statics[1]) if pattern is Pattern.XK else None
    return (
        Handshake(
            pattern,
            initiator=True,
            static=statics[0],
            ephemeral=ephemerals[0],
            remote_static=known,
            **shared,
        ),
        Handshake(pattern, initiator=False, static=statics[1], ephemeral=ephemerals[1], **shared),
    )


def greet(
    initiator: Handshake,
    responder: Handshake,
    payloads: tuple[bytes, bytes, bytes] = (b"", b"", b""),
    change: Callable[[int, list[bytes]], bytes] = lambda index, sent: sent[index],
) -> tuple[list[bytes], list[bytes]]:
    """Run a handshake through somebody who may `change` message `index`, given all sent so far.

    Returns the messages sent and the payloads received.
    """
    sent: list[bytes] = []
    received: list[bytes] = []
    turns = ((initiator, responder), (responder, initiator), (initiator, responder))
    for index, ((writer, reader), payload) in enumerate(zip(turns, payloads, strict=True)):
        sent.append(writer.write(payload))
        received.append(reader.read(change(index, sent)))
    return sent, received


def open_link(pattern: Pattern = Pattern.XX) -> tuple[Transport, Transport]:
    initiator, responder = both(pattern)
    greet(initiator, responder)
    return initiator.split(), responder.split()


def from_vector(vector: dict[str, Any]) -> tuple[Handshake, Handshake]:
    return both(
        PATTERNS[vector["protocol_name"]],
        prologue=bytes.fromhex(vector["prologue"]),
        statics=(bytes.fromhex(vector["init_static"]), bytes.fromhex(vector["resp_static"])),
        ephemerals=(
            bytes.fromhex(vector["init_ephemeral"]),
            bytes.fromhex(vector["resp_ephemeral"]),
        ),
        psk=bytes.fromhex(vector.get("psk", "00" * 32)),
    )


class TestVectors:
    @pytest.mark.parametrize(
        "vector",
        VECTORS["published"]["vectors"] + VECTORS["link"]["vectors"],
        ids=lambda vector: f"{vector['protocol_name']}-{vector['prologue'][-8:]}",
    )
    def test_messages_and_hash_are_those_of_the_vector(self, vector: dict[str, Any]) -> None:
        parties = dict(zip(("initiator", "responder"), from_vector(vector), strict=True))
        greetings, later = vector["messages"][:3], vector["messages"][3:]
        for message in greetings:
            writer = parties.pop(message["from"])
            (reader,) = parties.values()
            parties[message["from"]] = writer
            assert writer.write(bytes.fromhex(message["payload"])).hex() == message["ciphertext"]
            assert reader.read(bytes.fromhex(message["ciphertext"])).hex() == message["payload"]
        if "handshake_hash" in vector:
            assert {party.hash.hex() for party in parties.values()} == {vector["handshake_hash"]}
        links = {name: party.split() for name, party in parties.items()}
        other = {"initiator": "responder", "responder": "initiator"}
        assert later
        for message in later:
            sealed = links[message["from"]].encrypt(bytes.fromhex(message["payload"]))
            assert sealed.hex() == message["ciphertext"]
            assert links[other[message["from"]]].decrypt(sealed).hex() == message["payload"]

    def test_every_pattern_has_published_vectors(self) -> None:
        assert {v["protocol_name"] for v in VECTORS["published"]["vectors"]} == set(PATTERNS)

    @pytest.mark.parametrize("vector", VECTORS["link"]["vectors"], ids=lambda v: v["preamble"])
    def test_preamble_answer_and_prologue_are_those_of_the_vector(self, vector: dict[str, Any]) -> None:
        preamble = encode_preamble(Pattern(vector["pattern_byte"]), vector["offered"])
        assert preamble.hex() == vector["preamble"]
        parsed = parse_preamble(preamble)
        assert parsed == Preamble(PATTERNS[vector["protocol_name"]], tuple(vector["offered"]))
        answer = bytes.fromhex(vector["answer"])[0]
        assert choose_version(vector["offered"], {1, 2}) == answer
        assert link_prologue(preamble, answer).hex() == vector["prologue"]

    @pytest.mark.parametrize("refused", VECTORS["preambles_refused"])
    def test_a_preamble_of_the_refused_ones_is_refused(self, refused: str) -> None:
        with pytest.raises(HandshakeError):
            parse_preamble(bytes.fromhex(refused))


class TestAnotherImplementation:
    """Live against noiseprotocol, with ephemeral keys of its own making."""

    @staticmethod
    def stranger(
        pattern: Pattern,
        *,
        initiator: bool,
        static: bytes,
        known: bytes,
        prologue: bytes,
        psk: bytes = PSK,
    ) -> NoiseConnection:
        peer = NoiseConnection.from_name(NAMES[pattern].encode())
        peer.set_prologue(prologue)
        peer.set_keypair_from_private_bytes(Keypair.STATIC, static)
        if initiator:
            peer.set_as_initiator()
        else:
            peer.set_as_responder()
        if pattern is Pattern.XXPSK0:
            peer.set_psks(psk)
        if pattern is Pattern.XK and initiator:
            peer.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, known)
        peer.start_handshake()
        return peer

    @given(patterns, st.booleans(), keys, keys, keys, payloads, payloads)
    def test_a_link_opens_and_carries_both_ways_in_either_role(
        self,
        pattern: Pattern,
        we_initiate: bool,
        static: bytes,
        theirs: bytes,
        ephemeral: bytes,
        payload: bytes,
        prologue: bytes,
    ) -> None:
        pair = (static, theirs) if we_initiate else (theirs, static)
        we = both(pattern, prologue=prologue, statics=pair, ephemerals=(ephemeral, ephemeral))[0 if we_initiate else 1]
        peer = self.stranger(
            pattern,
            initiator=not we_initiate,
            static=theirs,
            known=public_of(static),
            prologue=prologue,
        )
        for index in range(3):
            if (index % 2 == 0) is we_initiate:
                assert bytes(peer.read_message(we.write(payload))) == payload
            else:
                assert we.read(bytes(peer.write_message(payload))) == payload
        assert we.done
        assert peer.handshake_finished
        assert we.hash == peer.get_handshake_hash()
        assert we.remote_static == public_of(theirs)
        link = we.split()
        for text in (payload, b"", b"x" * 70, bytes(PLAINTEXT_MAX_BYTES)):
            assert bytes(peer.decrypt(link.encrypt(text))) == text
            assert link.decrypt(bytes(peer.encrypt(text))) == text

    @pytest.mark.parametrize("pattern", [Pattern.XX, Pattern.XXPSK0])
    def test_a_static_key_shown_without_its_private_key_is_never_reported(self, pattern: Pattern) -> None:
        thief = self.stranger(pattern, initiator=False, static=RS, known=b"", prologue=b"p")
        thief.noise_protocol.handshake_state.s.public_bytes = public_of(b"victim's private static key here")
        we, _ = both(pattern)
        thief.read_message(we.write())
        with pytest.raises(HandshakeError):
            we.read(bytes(thief.write_message()))
        assert we.remote_static is None
        assert not we.done

    @pytest.mark.parametrize("point", LOW_ORDER, ids=bytes.hex)
    def test_a_static_key_of_low_order_is_refused(self, point: bytes) -> None:
        peer = self.stranger(Pattern.XX, initiator=False, static=RS, known=b"", prologue=b"p")
        peer.noise_protocol.handshake_state.s.public_bytes = point
        we, _ = both(Pattern.XX)
        peer.read_message(we.write())
        with pytest.raises(HandshakeError, match="key"):
            we.read(bytes(peer.write_message()))

    @pytest.mark.parametrize("size", [0, 1, 31])
    def test_a_short_static_key_under_a_valid_seal_is_refused_before_it_is_used(self, size: int) -> None:
        peer = self.stranger(Pattern.XX, initiator=False, static=RS, known=b"", prologue=b"p")
        peer.noise_protocol.handshake_state.s.public_bytes = bytes(size)
        we, _ = both(Pattern.XX)
        peer.read_message(we.write())
        without_payload = bytes(peer.write_message())[:-16]
        with pytest.raises(HandshakeError, match="cut short"):
            we.read(without_payload)


class TestHandshake:
    @given(patterns, keys, keys, keys, keys, keys, st.tuples(payloads, payloads, payloads), payloads)
    def test_both_sides_agree_on_hash_identities_and_keys(
        self,
        pattern: Pattern,
        init: bytes,
        resp: bytes,
        init_e: bytes,
        resp_e: bytes,
        psk: bytes,
        texts: tuple[bytes, bytes, bytes],
        prologue: bytes,
    ) -> None:
        a, b = both(
            pattern,
            prologue=prologue,
            statics=(init, resp),
            ephemerals=(init_e, resp_e),
            psk=psk,
        )
        assert greet(a, b, texts)[1] == list(texts)
        assert a.done
        assert b.done
        assert a.hash == b.hash
        assert len(a.hash) == 32
        assert (a.remote_static, b.remote_static) == (public_of(resp), public_of(init))
        left, right = a.split(), b.split()
        for text in texts:
            assert right.decrypt(left.encrypt(text)) == text
            assert left.decrypt(right.encrypt(text)) == text

    @given(st.data(), patterns, st.integers(0, 2), st.tuples(payloads, payloads, payloads))
    def test_a_message_changed_in_any_way_ends_the_handshake(
        self,
        data: st.DataObject,
        pattern: Pattern,
        target: int,
        texts: tuple[bytes, bytes, bytes],
    ) -> None:
        def change(index: int, sent: list[bytes]) -> bytes:
            message = sent[index]
            if index != target:
                return message
            flip = st.integers(0, 8 * len(message) - 1).map(
                lambda bit: (int.from_bytes(message, "big") ^ 1 << bit).to_bytes(len(message), "big")
            )
            cut = st.integers(0, len(message) - 1).map(lambda end: message[:end])
            grown = st.binary(min_size=1, max_size=20).map(lambda more: message + more)
            replayed = st.sampled_from(sent[:index] or [b""])
            foreign = st.sampled_from([key * 2 for key in (IE, RE)])
            noise = st.binary(max_size=200).filter(lambda other: other != message)
            return data.draw(st.one_of(flip, cut, grown, replayed, foreign, noise))

        a, b = both(pattern)
        with pytest.raises(HandshakeError) as refusal:
            greet(a, b, texts, change)
        assert "\n" not in str(refusal.value)
        assert not b.done
        assert not (a.done and target < 2)

    @given(patterns, st.integers(0, 2), st.binary(max_size=5000))
    def test_arbitrary_bytes_are_read_or_refused_and_never_finish_a_handshake(
        self, pattern: Pattern, index: int, hostile: bytes
    ) -> None:
        a, b = both(pattern)
        reader = a if index == 1 else b
        if index > 0:
            sent = a.write()
            if reader is b:
                b.read(sent)
                b.write()
        try:
            reader.read(hostile)
        except HandshakeError:
            assert reader.remote_static is None
            with pytest.raises(HandshakeError):
                reader.read(hostile)
        else:  # XX sends its first message in the clear: nothing is proven by it
            assert (pattern, index) == (Pattern.XX, 0)
            assert len(hostile) >= 32
        assert not reader.done

    @given(patterns, payloads, payloads)
    def test_different_prologues_end_the_handshake(self, pattern: Pattern, mine: bytes, theirs: bytes) -> None:
        if mine == theirs:
            theirs += b"!"
        a, _ = both(pattern, prologue=mine)
        _, b = both(pattern, prologue=theirs)
        with pytest.raises(HandshakeError):
            greet(a, b)
        assert not a.done
        assert not b.done

    @given(keys.filter(lambda key: key != PSK))
    def test_a_wrong_pairing_secret_ends_the_handshake_and_the_line_says_so(self, wrong: bytes) -> None:
        a, _ = both(Pattern.XXPSK0, psk=wrong)
        _, b = both(Pattern.XXPSK0)
        with pytest.raises(HandshakeError, match="pairing code"):
            greet(a, b)
        assert b.remote_static is None

    def test_a_prober_without_the_responders_key_gets_no_byte(self) -> None:
        a, _ = both(Pattern.XK, statics=(IS, b"another private key of 32 bytes."))
        _, b = both(Pattern.XK)
        with pytest.raises(HandshakeError, match="new key"):
            b.read(a.write())
        with pytest.raises(HandshakeError):
            b.write()

    @pytest.mark.parametrize(("one", "other"), list(permutations(Pattern, 2)))
    def test_two_patterns_never_meet(self, one: Pattern, other: Pattern) -> None:
        a, _ = both(one)
        _, b = both(other)
        with pytest.raises(HandshakeError):
            greet(a, b)

    @pytest.mark.parametrize("pattern", Pattern)
    @pytest.mark.parametrize("point", LOW_ORDER, ids=bytes.hex)
    def test_an_ephemeral_key_of_low_order_is_refused(self, pattern: Pattern, point: bytes) -> None:
        def poisoned(target: int) -> Callable[[int, list[bytes]], bytes]:
            return lambda index, sent: point + sent[index][32:] if index == target else sent[index]

        for target in (0, 1):
            with pytest.raises(HandshakeError):
                greet(*both(pattern), change=poisoned(target))

    def test_a_low_order_key_in_the_clear_is_called_by_its_name(self) -> None:
        _, b = both(Pattern.XX)
        b.read(LOW_ORDER[0])
        with pytest.raises(HandshakeError, match="key"):
            b.write()
        with pytest.raises(HandshakeError):
            b.write()

    @pytest.mark.parametrize("pattern", Pattern)
    def test_speaking_or_listening_out_of_turn_ends_the_handshake(self, pattern: Pattern) -> None:
        a, b = both(pattern)
        with pytest.raises(HandshakeError):
            b.write()
        with pytest.raises(HandshakeError):
            b.read(a.write())
        with pytest.raises(HandshakeError):
            a.write()

    @pytest.mark.parametrize("pattern", Pattern)
    def test_a_message_given_twice_ends_the_handshake(self, pattern: Pattern) -> None:
        a, b = both(pattern)
        first = a.write()
        b.read(first)
        with pytest.raises(HandshakeError):
            b.read(first)

    def test_a_finished_handshake_takes_no_more_and_stays_finished(self) -> None:
        a, b = both(Pattern.XK)
        sent, _ = greet(a, b)
        with pytest.raises(HandshakeError):
            b.read(sent[2])
        with pytest.raises(HandshakeError):
            a.write()
        assert a.done
        assert a.hash == b.hash

    def test_keys_are_given_out_once_and_not_before_the_end(self) -> None:
        a, b = both(Pattern.XX)
        with pytest.raises(RuntimeError):
            a.split()
        with pytest.raises(RuntimeError):
            _ = a.hash
        greet(a, b)
        a.split()
        with pytest.raises(RuntimeError):
            a.split()

    def test_a_message_above_the_limit_is_neither_written_nor_read(self) -> None:
        a, b = both(Pattern.XX)
        assert b.read(a.write(bytes(HANDSHAKE_MAX_BYTES - 32))) == bytes(HANDSHAKE_MAX_BYTES - 32)
        a, b = both(Pattern.XX)
        with pytest.raises(ValueError, match="4096"):
            a.write(bytes(HANDSHAKE_MAX_BYTES - 31))
        with pytest.raises(HandshakeError):
            b.read(bytes(HANDSHAKE_MAX_BYTES + 1))

    @pytest.mark.parametrize(
        ("pattern", "initiator", "extra"),
        [
            (Pattern.XK, True, {}),
            (Pattern.XK, False, {"remote_static": RS}),
            (Pattern.XX, True, {"remote_static": RS}),
            (Pattern.XX, True, {"psk": PSK}),
            (Pattern.XXPSK0, True, {}),
            (Pattern.XXPSK0, False, {"psk": PSK[:31]}),
            (Pattern.XXPSK0, False, {"psk": b""}),
            (Pattern.XK, True, {"remote_static": b""}),
            (Pattern.XK, True, {"remote_static": RS + b"!"}),
            (Pattern.XX, True, {"static": IS[:31]}),
            (Pattern.XX, True, {"ephemeral": b""}),
        ],
    )
    def test_keys_that_do_not_fit_the_pattern_are_an_error_of_the_caller(
        self, pattern: Pattern, initiator: bool, extra: dict[str, bytes]
    ) -> None:
        given_keys = {"static": IS, "ephemeral": IE, **extra}
        with pytest.raises(ValueError, match=r"^XX|^XK"):
            Handshake(pattern, initiator=initiator, prologue=b"", **given_keys)


class TestTransport:
    @given(st.lists(st.binary(max_size=300), min_size=1, max_size=8))
    def test_what_one_side_seals_the_other_opens_in_order(self, texts: list[bytes]) -> None:
        left, right = open_link()
        assert [right.decrypt(m) for m in [left.encrypt(t) for t in texts]] == texts

    @given(st.data(), st.lists(st.binary(max_size=50), min_size=2, max_size=6))
    def test_reordered_repeated_or_left_out_messages_are_refused(self, data: st.DataObject, texts: list[bytes]) -> None:
        left, right = open_link()
        sealed = [left.encrypt(text) for text in texts]
        expected = data.draw(st.integers(0, len(sealed) - 1))
        for message in sealed[:expected]:
            right.decrypt(message)
        wrong = data.draw(st.sampled_from([n for n in range(len(sealed)) if n != expected]))
        with pytest.raises(FrameError):
            right.decrypt(sealed[wrong])

    @given(st.data(), st.binary(max_size=100))
    def test_a_changed_message_is_refused(self, data: st.DataObject, text: bytes) -> None:
        left, right = open_link()
        sealed = left.encrypt(text)
        bit = data.draw(st.integers(0, 8 * len(sealed) - 1))
        flipped = (int.from_bytes(sealed, "big") ^ 1 << bit).to_bytes(len(sealed), "big")
        cut = sealed[: data.draw(st.integers(0, len(sealed) - 1))]
        for hostile in (flipped, cut, sealed + b"\0"):
            with pytest.raises(FrameError):
                right.decrypt(hostile)

    def test_a_message_sent_back_to_its_sender_is_refused(self) -> None:
        left, _ = open_link()
        with pytest.raises(FrameError):
            left.decrypt(left.encrypt(b"mine"))

    def test_the_same_text_is_never_sealed_to_the_same_bytes(self) -> None:
        left, right = open_link()
        assert len({side.encrypt(b"text") for side in (left, right) * 3}) == 6

    def test_the_largest_message_fills_a_frame_and_a_larger_one_is_an_error(self) -> None:
        left, right = open_link()
        sealed = left.encrypt(bytes(PLAINTEXT_MAX_BYTES))
        assert len(sealed) == MESSAGE_MAX_BYTES
        assert right.decrypt(memoryview(sealed)) == bytes(PLAINTEXT_MAX_BYTES)
        with pytest.raises(ValueError, match="65519"):
            left.encrypt(bytes(PLAINTEXT_MAX_BYTES + 1))
        with pytest.raises(FrameError, match="65536"):
            right.decrypt(bytes(MESSAGE_MAX_BYTES + 1))

    def test_a_link_ends_before_its_counter_could_repeat(self) -> None:
        left, right = open_link()
        for cipher in (left._send, right._receive):
            cipher._count = 2**64 - 2
        last = left.encrypt(b"last")
        assert right.decrypt(last) == b"last"
        with pytest.raises(FrameError, match="connect again"):
            left.encrypt(b"")
        with pytest.raises(FrameError, match="connect again"):
            right.decrypt(last)


class TestFrames:
    @given(
        st.booleans(),
        st.lists(st.integers(16, 3000), max_size=6),
        st.lists(st.integers(1, 400), min_size=1, max_size=30),
    )
    def test_any_cutting_of_the_stream_gives_the_same_messages(
        self, initiator: bool, sizes: list[int], cuts: list[int]
    ) -> None:
        greetings = [b"g" * 32, b"G" * HANDSHAKE_MAX_BYTES][: 1 if initiator else 2]
        messages = greetings + [bytes([n]) * size for n, size in enumerate(sizes)]
        stream = b"".join(map(encode_frame, messages))
        marks = [0, *(c for c in accumulate(cuts) if c < len(stream)), len(stream)]
        reader = FrameReader(initiator=initiator)
        got = [m for a, b in pairwise(marks) for m in reader.feed(stream[a:b])]
        assert got == messages

    def test_the_largest_frame_arrives_byte_by_byte(self) -> None:
        reader = FrameReader(initiator=True)
        assert reader.feed(encode_frame(bytes(32))) == [bytes(32)]
        message = bytes(range(255)) * 257
        assert len(message) == MESSAGE_MAX_BYTES
        got = [m for byte in encode_frame(message) for m in reader.feed(bytes([byte]))]
        assert got == [message]

    @pytest.mark.parametrize("initiator", [True, False])
    @pytest.mark.parametrize("size", [0, 1, 16, 31, HANDSHAKE_MAX_BYTES + 1, MESSAGE_MAX_BYTES])
    def test_a_greeting_of_a_hostile_length_is_refused_at_its_second_byte(self, initiator: bool, size: int) -> None:
        reader = FrameReader(initiator=initiator)
        head = size.to_bytes(2, "big")
        assert reader.feed(head[:1]) == []
        with pytest.raises(FrameError, match=f"{size} B"):
            reader.feed(head[1:])
        with pytest.raises(FrameError):
            reader.feed(encode_frame(bytes(32)))

    @pytest.mark.parametrize("initiator", [True, False])
    def test_large_frames_are_let_in_after_the_last_greeting_only(self, initiator: bool) -> None:
        large = encode_frame(bytes(HANDSHAKE_MAX_BYTES + 1))
        greeting = encode_frame(bytes(32))
        needed = 1 if initiator else 2
        early = FrameReader(initiator=initiator)
        with pytest.raises(FrameError):
            early.feed(greeting * (needed - 1) + large)
        assert len(FrameReader(initiator=initiator).feed(greeting * needed + large)) == needed + 1

    @pytest.mark.parametrize("size", range(16))
    def test_a_later_frame_too_small_for_a_tag_is_refused(self, size: int) -> None:
        reader = FrameReader(initiator=True)
        reader.feed(encode_frame(bytes(32)) + encode_frame(bytes(16)))
        with pytest.raises(FrameError):
            reader.feed(size.to_bytes(2, "big") + bytes(size))

    @given(st.booleans(), st.lists(st.binary(max_size=200), max_size=10))
    def test_hostile_bytes_give_messages_or_a_refusal(self, initiator: bool, chunks: list[bytes]) -> None:
        reader = FrameReader(initiator=initiator)
        stream, got = b"".join(chunks), []
        try:
            for chunk in chunks:
                got += reader.feed(chunk)
        except ProtocolError:
            with pytest.raises(FrameError):
                reader.feed(b"")
        else:
            assert stream.startswith(b"".join(map(encode_frame, got)))

    @pytest.mark.parametrize("size", [0, 15, MESSAGE_MAX_BYTES + 1])
    def test_no_frame_is_made_of_what_no_peer_would_take(self, size: int) -> None:
        with pytest.raises(ValueError, match=str(size)):
            encode_frame(bytes(size))


class TestPreamble:
    @given(patterns, st.sets(st.integers(1, 255), min_size=1))
    def test_an_offer_is_read_back_and_every_beginning_of_it_awaits_more(
        self, pattern: Pattern, versions: set[int]
    ) -> None:
        preamble = encode_preamble(pattern, versions)
        assert parse_preamble(preamble) == Preamble(pattern, tuple(sorted(versions)))
        assert {parse_preamble(preamble[:end]) for end in range(len(preamble))} == {None}
        with pytest.raises(HandshakeError):
            parse_preamble(preamble + b"\xff")

    @given(st.one_of(st.binary(max_size=12), st.binary(max_size=9).map(b"OL".__add__)))
    def test_what_is_accepted_has_one_spelling(self, data: bytes) -> None:
        try:
            parsed = parse_preamble(data)
        except HandshakeError:
            return
        if parsed is not None:
            assert encode_preamble(parsed.pattern, parsed.versions) == data

    @pytest.mark.parametrize("versions", [[], [0], [256], [1, 300], [-1, 1]])
    def test_versions_that_fit_no_byte_are_an_error_of_the_caller(self, versions: list[int]) -> None:
        with pytest.raises(ValueError, match="1 to 255"):
            encode_preamble(Pattern.XX, versions)

    @given(st.sets(st.integers(1, 255)), st.sets(st.integers(1, 255)))
    def test_the_highest_common_version_is_chosen_and_accepted(self, offered: set[int], supported: set[int]) -> None:
        chosen = choose_version(offered, supported)
        common = offered & supported
        if common:
            assert chosen == max(common)
            assert accept_version(offered, chosen) == chosen
        else:
            assert chosen == 0
            with pytest.raises(HandshakeError, match="no link version"):
                accept_version(offered, chosen)

    def test_an_answer_that_was_not_offered_is_refused(self) -> None:
        with pytest.raises(HandshakeError, match="version 3"):
            accept_version((1, 2), 3)

    @pytest.mark.parametrize("pattern", Pattern)
    def test_lowering_the_version_between_the_nodes_ends_the_handshake(self, pattern: Pattern) -> None:
        sent = encode_preamble(pattern, (1, 2))
        arrived = encode_preamble(pattern, (1,))
        parsed = parse_preamble(arrived)
        assert parsed is not None
        chosen = choose_version(parsed.versions, (1, 2))
        assert accept_version((1, 2), chosen) == 1
        a, _ = both(pattern, prologue=link_prologue(sent, chosen))
        _, b = both(pattern, prologue=link_prologue(arrived, chosen))
        with pytest.raises(HandshakeError):
            greet(a, b)

    @pytest.mark.parametrize("pattern", Pattern)
    def test_changing_the_answer_between_the_nodes_ends_the_handshake(self, pattern: Pattern) -> None:
        preamble = encode_preamble(pattern, (1, 2))
        a, _ = both(pattern, prologue=link_prologue(preamble, 1))
        _, b = both(pattern, prologue=link_prologue(preamble, 2))
        with pytest.raises(HandshakeError):
            greet(a, b)
