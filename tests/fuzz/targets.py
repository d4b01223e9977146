"""Every decoder that takes bytes or text from outside: its seeds, how it is called, and what it may raise.

Much of what nodes exchange stands under a hash, a signature or a seal, and no fuzzer guesses those. Such a decoder has
two targets: one gets raw bytes, the other gets what lies behind the seal, which the target makes good again. Inputs of
the latter are msgpack, so that ``mutate`` can change them by their form.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import hmac
import json
import math
import re
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from hmac import digest as hmac_digest
from ipaddress import IPv4Address
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt
from shamir_mnemonic import generate_mnemonics
from starlette.requests import Request, cookie_parser
from starlette.types import Message
from zeroconf.asyncio import AsyncServiceInfo

from outlast import address, dns, socks, tls
from outlast.edges import gate
from outlast.edges.api import LocalApi
from outlast.edges.spread.install import File as ReleaseFile
from outlast.edges.spread.install import InstallError, read_manifest
from outlast.edges.spread.shelf import write_index, write_manifest
from outlast.edges.spread.signing import sign as sign_release
from outlast.edges.spread.signing import signers
from outlast.errors import LockedError, OutlastError, ProtocolError, StorageError, UsageError
from outlast.kernel import (
    backup,
    bundle,
    circular,
    epoch,
    hpke,
    keyslot,
    mail,
    membership,
    revocation,
    room,
    tombstone,
)
from outlast.kernel.admit import AdmissionState, Candidate, examine
from outlast.kernel.bundle import BundleError, BundleReader, BundleWriter
from outlast.kernel.chunks import Downloads
from outlast.kernel.entry import (
    HEADER_MAX_BYTES,
    VERSION,
    Entry,
    EntryError,
    Header,
    decode_header,
    encode_header,
    entry_id,
    pack,
    sign_entry,
    unpack,
    unpack_all,
)
from outlast.kernel.groups import Said
from outlast.kernel.hpke import OpeningKey
from outlast.kernel.identity import (
    SHARE_WORDS,
    Certificate,
    Device,
    DeviceBody,
    IdentityError,
    SealingKey,
    SigningKey,
    certify,
    check_name,
    derive,
    entropy_of,
    id_text,
    node_text,
    parse_id,
    parse_node,
    parse_space,
    read_certificate,
    sign_prekey,
    space_text,
    words_of,
)
from outlast.kernel.invite import make_channel_link, make_link, read_channel_link, read_link
from outlast.kernel.kinds import Kind, KindError, Kinds
from outlast.kernel.links import beacon, lan
from outlast.kernel.links.channel import MESSAGE_MAX_BYTES, Channel, Opened
from outlast.kernel.links.link import Cost, Duplex
from outlast.kernel.mail import MailError, SealedLetter
from outlast.kernel.noise import (
    PLAINTEXT_MAX_BYTES,
    FrameError,
    FrameReader,
    Handshake,
    HandshakeError,
    Pattern,
    Transport,
    encode_frame,
    encode_preamble,
    parse_preamble,
)
from outlast.kernel.outbox import Receipt
from outlast.kernel.parcel import make_parcel
from outlast.kernel.setrec import Initiator, Responder, SetrecError, SetView
from outlast.kernel.space import GENESIS, SpaceBody, make_closed_genesis, make_genesis, open_genesis
from outlast.kernel.steps import Close, CutOff, Event, LinkClosed, LocalAppended, MessageArrived, Stopping, Tick
from outlast.rooms.carry import ROOM, group_view
from outlast.rooms.carry.entries import (
    DEVICE,
    FILE,
    HEARD,
    HIDE,
    POST,
    SHARED,
    TEXT,
    ChannelDevice,
    File,
    Heard,
    Hide,
    Post,
    Shared,
    Text,
    read_file,
    read_shared,
)
from outlast.rooms.carry.proto import id3, isobmff, matroska, ogg
from outlast.rooms.carry.proto.patch import MediaError, patched
from outlast.rooms.reach import ROOM as REACH
from outlast.rooms.reach import view as reach_view
from outlast.rooms.reach.proto import bootstrap, doh, fragment, mux, pluggable, session, web
from outlast.rooms.reach.proto import http_proxy as reach_http_proxy
from outlast.rooms.reach.proto import links as reach_links
from outlast.rooms.reach.proto import request as reach_request
from outlast.rooms.reach.proto import socks as reach_socks
from outlast.rooms.reach.proto.ext_or_port import COOKIE_HEADER, Introducer, Introduction, Receiver, read_cookie
from outlast.rooms.reach.proto.failures import BridgeError
from outlast.rooms.reach.proto.http_message import Answer, HttpError
from outlast.rooms.reach.proto.mux import MuxError
from outlast.rooms.reach.proto.replay import Replays
from outlast.rooms.reach.proto.shadowsocks import ShadowsocksError, Sip004
from outlast.rooms.reach.proto.shadowsocks_2022 import Sip022, session_key
from outlast.rooms.watch import ROOM as WATCH
from outlast.rooms.watch import asked, signals
from outlast.rooms.watch.entries import (
    ASK,
    HEARTBEAT,
    KEY,
    OBSERVATION,
    TOLD,
    WITNESS,
    Ask,
    Told,
    pack_raw,
    unpack_raw,
)
from outlast.rooms.watch.io.link import default_gateway, is_neighbour, read_target
from outlast.rooms.watch.proto import (
    control,
    endpoints,
    fusion,
    http,
    mrt,
    quic,
    recognise,
    series,
    services,
)
from outlast.rooms.watch.proto.classify import classify
from outlast.rooms.watch.proto.fingerprints import Fingerprints, read_list
from outlast.rooms.watch.proto.measurement import MeasurementError, from_object
from outlast.rooms.watch.proto.probe import is_public
from outlast.rooms.watch.proto.records import Damage, records
from outlast.rooms.watch.proto.targets import RISKY, read_targets
from outlast.rooms.watch.scrub import scrub
from outlast.rooms.watch.view import faded
from outlast.terms import OUTAGE, ROUTE, Route
from outlast.testing import Meeting, MemoryLink, MemoryShelf, Place, Town
from outlast.ui.arriving import arriving
from tests import nameserver
from tests.hello import client_hello
from tests.unit.rooms.carry import recordings
from tests.unit.rooms.watch import mrt_files

Run = Callable[[bytes], str | None]
"""Takes one input; returns None when the decoder took it, else why not. Raises when a property is broken."""
NOW_MS = 1_795_305_912_345
TODAY = NOW_MS // 86_400_000
PASSPHRASE = "kingfisher"


@dataclass(frozen=True)
class Target:
    """One decoder: real inputs to start from, and what to do with each input."""

    name: str
    seeds: Callable[[], Iterable[bytes]]
    prepare: Callable[[], Run]
    allowed: tuple[type[Exception], ...]
    """What the decoder documents that it raises."""
    refusals: int
    """At least so many different reasons come up in a second; fewer show that most of it was not reached."""


def run_with(function: Run) -> Callable[[], Run]:
    """The ``prepare`` of a target that needs no preparation."""
    return lambda: function


def packed(*parts: object) -> bytes:
    """An input made of parts."""
    return msgspec.msgpack.encode(list(parts))


def parts_of(data: bytes, *kinds: type) -> list[Any] | None:
    """The parts of an input, None when they are not of these types."""
    try:
        found = msgspec.msgpack.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    if not isinstance(found, list) or len(found) != len(kinds):
        return None
    return found if all(type(part) is kind for part, kind in zip(found, kinds, strict=True)) else None


NO_INPUT = "this is no input for the target"


def secret(*names: object) -> bytes:
    """32 bytes that depend on the names alone."""
    return sha256("/".join(map(str, names)).encode()).digest()


def stream(*names: object) -> Callable[[int], bytes]:
    """A source of bytes that gives the same ones in every run."""
    blocks = count()

    def take(size: int) -> bytes:
        return b"".join(secret(*names, next(blocks)) for _ in range(-(-size // 32)))[:size]

    return take


@dataclass(frozen=True)
class Somebody:
    """A person with one device and one prekey."""

    identity: SigningKey
    signing: SigningKey
    seal: OpeningKey
    prekey: OpeningKey
    device: Device


@cache
def somebody(name: str) -> Somebody:
    """The person of that name; the same keys in every run."""
    identity, signing = SigningKey.from_seed(secret(name, 1)), SigningKey.from_seed(secret(name, 2))
    seal, prekey = OpeningKey.from_secret(secret(name, 3)), OpeningKey.from_secret(secret(name, 4))
    device = read_certificate(certify(identity, signing, seal.public, TODAY, name))
    return Somebody(identity, signing, seal, prekey, device)


# ---- entries ----


def entry(payload: bytes | None, **fields: Any) -> Entry:
    """A signed entry."""
    author = somebody("Ada").signing
    content = payload or b""
    header = Header(
        **{
            "version": VERSION,
            "space": secret("space"),
            "kind": POST.name,
            "author": author.public,
            "seq": 0,
            "prev": None,
            "clock": 7,
            "ts_ms": NOW_MS,
            "expires_day": TODAY + 20,
            "priority": 2,
            "payload_hash": sha256(content).digest(),
            "payload_size": len(content),
            "tags": (),
            "stamp_nonce": 0,
            **fields,
        }
    )
    return sign_entry(header, author, payload)


@cache
def entries() -> list[Entry]:
    """One entry of each form."""
    owner = somebody("Ada")
    body = SpaceBody("open", "news", owner.device.certificate, "owner", (owner.identity.public,), bytes(16))
    return [
        entry(POST.encode(Post("a post", secret("other")))),
        entry(HIDE.encode(Hide(secret("post"))), kind=HIDE.name, tags=(b"a", b"b" * 32), priority=0),
        entry(DEVICE.encode(ChannelDevice(owner.device.certificate)), kind=DEVICE.name),
        entry(b"opaque", kind="other.kind", seq=2, prev=secret("prev"), clock=2**40),
        entry(None, payload_size=200_000, seq=1, stamp_nonce=2**63),
        make_genesis(owner.signing, body, NOW_MS),
        envelope(sealed_letter()),
        make_parcel(owner.signing, [secret("chunk")] * 3, b"hash" * 24, NOW_MS),
        *(entry(kind.encode(body), kind=kind.name) for kind, body in watch_bodies() if kind not in (ASK, KEY, TOLD)),
    ]


def watch_bodies() -> Iterable[tuple[Kind, msgspec.Struct]]:
    """A body of each kind of the room watch."""
    layers = ("blocked", "ok", "down", "unknown", "ok")
    raw = pack_raw(b'{"test_keys":{}}')
    observed = ["web_connectivity", "https://a.example/", 0, "BY", 6697, "dns", False, layers, "page", "outlast", raw]
    yield OBSERVATION, msgspec.convert(observed, OBSERVATION.body)
    yield HEARTBEAT, msgspec.convert(["BY", 6697], HEARTBEAT.body)
    yield WITNESS, msgspec.convert(["BY", "blackout", 1_795_000_000, "BY", 6697], WITNESS.body)
    cut = [
        "BY-HM",
        "restoring",
        1_795_000_000,
        1_795_100_000,
        ["bgp: 9 % lower", ["changed", ["bgp", -0.5, 1_795_000_000, 2]]],
        [secret("witness")],
    ]
    yield OUTAGE, msgspec.convert(cut, OUTAGE.body)
    yield ROUTE, Route("web", "freeze", 1_795_305_600, "BY", 6697)
    yield KEY, msgspec.convert([secret("key"), TODAY], KEY.body)
    yield ASK, Ask(bytes(16), "https://www.example.org/")
    yield TOLD, Told(bytes(16), "", b"packed")


def decode_one_header(data: bytes) -> None:
    """A header that is taken has one form."""
    header = decode_header(data)
    assert len(data) <= HEADER_MAX_BYTES
    assert header.version > 1 or encode_header(header) == data


def unpack_one(data: bytes) -> None:
    """What is unpacked packs to the same bytes."""
    found, end = unpack(data)
    assert pack(found) == data[:end]


def unpack_buffer(data: bytes) -> None:
    """A buffer that is taken is the entries in it and nothing else."""
    assert b"".join(map(pack, unpack_all(data))) == data


class Everything:
    """All spaces are followed."""

    def __contains__(self, _one: object) -> bool:
        """It is."""
        return True


def whole(data: bytes) -> Entry | str:
    """The entry whose header and payload an input holds, with the payload's true hash and size in the header."""
    found = parts_of(data, bytes, bytes)
    if found is None:
        return NO_INPUT
    header_bytes, payload = found
    try:
        fields = msgspec.msgpack.decode(header_bytes)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return NO_INPUT
    if isinstance(fields, list) and len(fields) > 11:
        fields[10:12] = sha256(payload).digest(), len(payload)
        try:
            header_bytes = msgspec.msgpack.encode(fields)
        except OverflowError:
            return NO_INPUT
    try:
        return unpack((len(header_bytes) % 2**15 | 2**15).to_bytes(2, "big") + header_bytes + bytes(64) + payload)[0]
    except EntryError as error:
        return str(error)


def admit_one(data: bytes) -> str | None:
    """Admission raises nothing for whatever an entry holds."""
    kinds = Kinds([GENESIS, *ROOM.kinds])
    found = whole(data)
    if isinstance(found, str):
        return found
    verdict = examine(found, AdmissionState(kinds, Everything(), TODAY))
    packed_verdict = examine(pack(found), AdmissionState(kinds, Everything(), TODAY))
    assert type(packed_verdict) is type(verdict)
    return None if isinstance(verdict, Candidate) else str(verdict.rule.line)


def fold_one(data: bytes) -> str | None:
    """A room's rows of an entry or a letter fit into the tables: 64-bit numbers, text that is text."""
    found = whole(data)
    if isinstance(found, str):
        return found
    rows = [row for one in (ROOM, WATCH) for row in one.fold(room.Change(1, room.Event.ADMITTED, found), NoRows())]
    body = found.payload or b""
    letter = room.Letter(bytes(16), TEXT.name, body, NOW_MS, secret("sender"), secret("device"), NOW_MS)
    rows += ROOM.receive(letter, NoRows())
    rows += WATCH.receive(letter._replace(kind=KEY.name), NoRows())
    rows += ROOM.receive(letter._replace(kind=HEARD.name), NoRows())
    h, space = found.header, secret("space")
    said = Said(found.id, h.kind, body, h.author, None, h.seq, h.clock, h.ts_ms, True)
    rows += filter(None, (group_view.text_row(said, space, space, NOW_MS), group_view.removal_row(said, space)))
    for row in rows:
        for value in row.row.values() if isinstance(row, room.Put) else ():
            assert not isinstance(value, int) or -(2**63) <= value < 2**63
            assert not isinstance(value, str) or value.encode().decode() == value
    return None if rows else "no row"


class NoRows:
    """Empty tables."""

    def query(self, _sql: str, _args: Sequence[Any] = ()) -> list[Any]:
        """Nothing."""
        return []


KINDS: tuple[Kind, ...] = (
    GENESIS,
    revocation.REVOKE,
    revocation.DEVICES,
    tombstone.TOMBSTONE,
    membership.MEMBER_ACT,
    circular.CIRCULAR,
    *ROOM.kinds,
    *ROOM.letters,
    *WATCH.kinds,
    *WATCH.letters,
    Kind("receipt", Receipt, max_bytes=4096),
)


def decode_kind(data: bytes) -> str | None:
    """A body that is taken can be written again."""
    found = parts_of(data, int, bytes)
    if found is None:
        return NO_INPUT
    number, body = found
    kind = KINDS[number % len(KINDS)]
    msgspec.msgpack.encode(kind.decode(body))
    if kind is FILE:
        read_file(body)
    if kind is SHARED:
        read_shared(body)
    return None


def bodies() -> Iterable[bytes]:
    """A body of each kind."""
    owner = somebody("Ada").device
    made: list[msgspec.Struct] = [
        SpaceBody("open", "news", owner.certificate, "owner", (owner.identity,), bytes(16)),
        Post("hello", None),
        revocation.Revoke(revocation.revoke(somebody("Ada").identity, owner.device)),
        msgspec.msgpack.decode(next(iter(device_letters())), type=revocation.Devices),
        tombstone.Tombstone((secret("post"), secret("other")), owner.certificate),
        next(iter(act_bodies())),
        circular.Circular(secret("space"), b"", (b"packed",), ((secret("epoch"), secret("secret")),), ()),
        Hide(secret("post")),
        ChannelDevice(owner.certificate),
        Text("hello", bytes(16)),
        File("photo.jpg", "image/jpeg", 3, secret("key"), (secret("parcel"),), b"preview"),
        Heard((secret("text"),)),
        Shared("photo.jpg", "image/jpeg", 3, secret("content"), b"preview"),
        *(body for _, body in watch_bodies()),
        Receipt(1, [bytes(16), secret("letter")[:16]]),
    ]
    for number, kind in enumerate(KINDS):
        if kind.body is not None:
            yield packed(number, kind.encode(next(body for body in made if isinstance(body, kind.body))))


# ---- identities, links, words ----


def read_signed_certificate(data: bytes) -> None:
    """The certificate of a body that identity and device signed, whatever it says."""
    ada, older = somebody("Ada"), somebody("Older").signing
    message = b"outlast/device/1" + data
    cross = (older.sign(message), older.public) if len(data) % 2 else (None, None)
    signed = Certificate(data, ada.identity.sign(message), ada.signing.sign(message), *cross)
    device = read_certificate(msgspec.msgpack.encode(signed))
    assert device.name == check_name(device.name)


def device_bodies() -> Iterable[bytes]:
    """Bodies of certificates."""
    ada = somebody("Ada").device
    for name in ("Ada", "Ada L", "Ада", "x" * 64):
        yield msgspec.msgpack.encode(DeviceBody(ada.identity, ada.device, ada.seal, TODAY, name))


def read_signed_revocation(data: bytes) -> None:
    """The revocation of a body that the identity signed, whatever it says; and as an entry brings it."""
    signed = revocation.SignedRevocation(data, somebody("Ada").identity.sign(b"outlast/revocation/1" + data))
    found = revocation.read_revocation(msgspec.msgpack.encode(signed))
    brought = entry(revocation.REVOKE.encode(revocation.Revoke(found.signed)), kind="revoke", space=found.space)
    assert revocation.revocation_in(brought) == found


def revocation_bodies() -> Iterable[bytes]:
    """Bodies of revocations."""
    identity, device = somebody("Ada").identity.public, somebody("Bob").signing.public
    for space, seq, last in ((mail.MAIL_SPACE, 0, None), (secret("space"), 2**64 - 1, secret("entry"))):
        yield msgspec.msgpack.encode(revocation.RevocationBody(identity, device, space, seq, last))


def act_bodies() -> Iterable[membership.ActBody]:
    """What members say of who belongs."""
    certificate = somebody("Ada").device.certificate
    parents = (secret("act"), secret("other act"))
    last = ((somebody("Bob").device.device, 2**64 - 1),)
    subject = somebody("Bob").device.identity
    yield membership.ActBody("add", subject, "admin", tuple(sorted(parents)), (), b"", certificate)
    yield membership.ActBody("remove", subject, "", (), last, secret("commitment"), certificate)
    yield membership.ActBody("renew", b"", "", parents[:1], (), secret("commitment"), certificate)
    yield membership.ActBody("here", b"", "", (), (), b"", certificate)


def resolve_one(data: bytes) -> str | None:
    """Whatever an act says, there are members, and the owner is one unless it was the owner who left."""
    ada = somebody("Ada").device
    act = membership.read_act(secret("entry"), ada.device, 3, membership.MEMBER_ACT.decode(data))
    if act is None:
        return "no act"
    founding = membership.Founding(secret("space"), ada.identity, ada.device, secret("commitment"))
    found = membership.resolve(founding, [act, act])
    left = (act.act, act.subject) == ("remove", ada.identity)
    assert left or found.roles[ada.identity] == "owner"
    assert len(found.heads) <= 1
    return None


EPOCHS = {secret("epoch"): secret("epoch's secret")}


def sealed_inners() -> Iterable[bytes]:
    """What lies in sealed entries."""
    for body in (b"", b"hello", bytes(2000)):
        plain = msgspec.msgpack.encode(epoch.Inner("post", NOW_MS, body))
        yield len(plain).to_bytes(4, "big") + plain


def sealed_entry(payload: Callable[[Header], bytes], size: int) -> Entry:
    """A sealed entry with whatever payload somebody with the key makes."""
    header = entry(
        bytes(size),
        kind="sealed",
        space=secret("space"),
        ts_ms=NOW_MS - NOW_MS % 3_600_000,
        seq=1,
        priority=1,
        expires_day=TODAY + 3,
    ).header
    made = payload(header)
    header = msgspec.structs.replace(header, payload_hash=sha256(made).digest())
    return sign_entry(header, somebody("Ada").signing, made)


def sealing(plain: bytes, size: int) -> Callable[[Header], bytes]:
    """Makes the payload, of that size, in which this is sealed."""

    def seal(header: Header) -> bytes:
        bound = encode_header(msgspec.structs.replace(header, payload_hash=bytes(32)))
        head = bytes((1,)) + b"".join(EPOCHS) + bytes(24)
        key = derive(epoch.epoch_key(header.space, EPOCHS), b"outlast/epoch/seal/1")
        room_left = size - len(head) - 16
        padded = plain[:room_left].ljust(room_left, b"\0")
        return head + crypto_aead_xchacha20poly1305_ietf_encrypt(padded, bound, bytes(24), key)

    return seal


def open_sealed_inner(data: bytes) -> None:
    """What is opened is in its hour."""
    size = 65536 if len(data) > 3000 else 4096
    inner = epoch.open_entry(sealed_entry(sealing(data, size), size), EPOCHS)
    assert 0 <= inner.ts_ms - (NOW_MS - NOW_MS % 3_600_000) < 3_600_000


def open_raw_sealed(data: bytes) -> None:
    """Whatever lies in a sealed entry's payload."""
    size = next((size for size in epoch.SEALED_CLASSES if len(data) <= size), epoch.SEALED_CLASSES[-1])
    epoch.open_entry(sealed_entry(lambda _: data[:size].ljust(size, b"\0"), size), EPOCHS)


def raw_sealed() -> Iterable[bytes]:
    """Payloads of sealed entries."""
    for plain in sealed_inners():
        size = 512 if len(plain) < 400 else 4096
        yield sealed_entry(sealing(plain, size), size).payload or b""
    yield bytes((2,)) + secret("another") + secret("and another")


def closed_bodies() -> Iterable[bytes]:
    """What lies in the box of a sealed genesis."""
    owner = somebody("Ada").device
    fits = epoch.commitment(secret("first"))
    body = SpaceBody("members", "circle", owner.certificate, "anyone", (), bytes(16), fits)
    plain = msgspec.msgpack.encode(body)
    yield len(plain).to_bytes(2, "big") + plain


def open_boxed(data: bytes) -> None:
    """The box of a genesis, whatever its owner put into it."""
    signing = somebody("Ada").signing
    key = derive(secret("first"), b"outlast/space/box/1", bytes(16))
    box = crypto_aead_xchacha20poly1305_ietf_encrypt(data[:1024].ljust(1024, b"\0"), signing.public, bytes(24), key)
    body = SpaceBody("sealed", "", b"", "anyone", (), bytes(16), epoch.commitment(secret("first")), box)
    found = open_genesis(make_genesis(signing, body, NOW_MS - NOW_MS % 3_600_000), secret("first"))
    assert check_name(found.name) == found.name


def receive_circular(data: bytes) -> str | None:
    """Rows of a circular fit into their tables, and are few."""
    letter = room.Letter(bytes(16), "group", data, NOW_MS, secret("sender"), secret("device"), NOW_MS)
    rows = circular.receive(letter, Counts())
    assert len(rows) <= (circular.TOLD_MAX + 3) * len(data)
    for row in rows:
        for value in row.row.values() if isinstance(row, room.Put) else ():
            assert not isinstance(value, str) or value.encode().decode() == value
    return None if rows else "no row"


class Counts(NoRows):
    """Empty tables, of which the rows are counted."""

    def query(self, sql: str, _args: Sequence[Any] = ()) -> list[Any]:
        """A zero for a count."""
        return [(0,)] if "count(*)" in sql else []


def circular_letters() -> Iterable[bytes]:
    """Circulars with an invitation, and without."""
    ada = somebody("Ada")
    first = secret("first")
    genesis = make_closed_genesis(
        ada.signing, ada.device.certificate, "circle", "members", NOW_MS, secret=first, nonce=bytes(16)
    )
    inside = entry(b"hello", space=genesis.id)
    told = [ada.device.identity]
    pairs = [(genesis.id, first), (secret("epoch"), secret("epoch's secret"))]
    yield from circular.circulars(genesis.id, genesis=genesis, entries=[inside], secrets=pairs, told=told)
    yield from circular.circulars(genesis.id, entries=[inside])


def read_tombstone(data: bytes) -> str | None:
    """A tombstone of any body names few ids, and judging it raises nothing."""
    post = entry(b"x")
    brought = entry(data, kind="tombstone", expires_day=0)
    stone = tombstone.read_stone(brought)
    if stone is None:
        return "no tombstone"
    assert len(stone.ids) <= tombstone.ENDED_MAX
    assert all(len(id) == 32 for id in stone.ids)
    assert tombstone.ends(stone, post.header, set(), [])
    return None


def tombstones() -> Iterable[bytes]:
    """Bodies of tombstones: by the author, and by somebody else."""
    for name in ("Ada", "Bob"):
        yield tombstone.TOMBSTONE.encode(tombstone.Tombstone((secret("post"),), somebody(name).device.certificate))


def read_devices(data: bytes) -> str | None:
    """A letter about devices tells of few, and of no one's but its sender's."""
    identity = somebody("Ada").identity.public
    added, revoked = revocation.read_told(data, identity)
    assert max(len(added), len(revoked)) <= revocation.TOLD_MAX
    assert {one.identity for one, _, _ in added} | {one.identity for one in revoked} <= {identity}
    return None if added or revoked else "nothing"


def device_letters() -> Iterable[bytes]:
    """Letters about devices."""
    ada, bob = somebody("Ada"), somebody("Bob")
    signature = sign_prekey(ada.signing, ada.prekey.public, TODAY)
    told = revocation.Told(ada.device.certificate, ada.prekey.public, TODAY, signature)
    ended = revocation.revoke(ada.identity, bob.signing.public)
    yield revocation.tell([told, told], [ended])
    yield revocation.tell([], [ended, revocation.revoke(bob.identity, bob.signing.public)])


def text_of(data: bytes) -> str:
    """Any text, lone surrogates included."""
    return data.decode("utf-8", "surrogateescape")


def read_any_link(data: bytes) -> None:
    """A text that is one of the two links is not the other."""
    text = text_of(data)
    try:
        read_link(text, today=TODAY)
    except UsageError:
        read_channel_link(text)


def read_contact_fields(data: bytes) -> str | None:
    """A contact link whose prekey its device signed, whatever its fields are."""
    try:
        fields = msgspec.msgpack.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        fields = None
    if isinstance(fields, list) and len(fields) > 4 and fields[4] == b"":
        key, day = fields[2:4]
        if isinstance(key, bytes) and isinstance(day, int) and 0 <= day < 2**32:
            fields[4] = sign_prekey(somebody("Ada").signing, key, day)
        try:
            data = msgspec.msgpack.encode(fields)
        except OverflowError:
            return NO_INPUT
    found = read_link("outlast://contact/" + base64.urlsafe_b64encode(data).decode().rstrip("="), today=TODAY)
    assert hpke.seal(found.prekey, b"x", info=b"", aad=b"", ephemeral=secret("e")) is not None
    return None


def read_channel_fields(data: bytes) -> None:
    """A channel link, whatever its fields are."""
    found = read_channel_link("outlast://channel/" + base64.urlsafe_b64encode(data).decode())
    assert make_channel_link(found.space, found.name)


def read_any_bridge(data: bytes) -> None:
    """A text that names a bridge has one canonical form, which names the same bridge."""
    found = reach_links.read_bridge(text_of(data))
    text = reach_links.write_bridge(found)
    assert reach_links.read_bridge(text) == found
    assert reach_links.bridge_id(found) == reach_links.bridge_id(reach_links.read_bridge(text))


WEB_KEY = base64.b64encode(bytes(16))
WEB_PATH = web.path_of(bytes(32), TODAY)
WEB_ANSWERS = (
    b"HTTP/1.1 404 Not Found\r\nDate: Mon, 23 Nov 2026 08:00:00 GMT\r\nContent-Length: 0\r\n\r\n",
    web.write_accept(WEB_KEY, b"Mon, 23 Nov 2026 08:00:00 GMT", b"pad") + b"frames",
    b"SSH-2.0-OpenSSH\r\n\r\n",
)


def hear_visitor(data: bytes) -> str | None:
    """What a stranger says first to a bridge's site: a door opens only to one of its own paths."""
    doors = web.Doors({"one": bytes(32)}, bytes(32))
    path, key = web.path_asked(data), web.key_asked(data)
    user = doors.user_of(path, NOW_MS / 1000) if path else None
    assert user is None or WEB_PATH in data
    return None if user and key else f"{path is not None} {key is not None}"


def hear_site(data: bytes) -> str | None:
    """What a bridge's site answers: only the answer to our own key lets us in."""
    match web.read_answer(data, bytes(16)):
        case web.Accepted(rest):
            assert web.accept_of(WEB_KEY) in data
            assert data.endswith(rest)
            return None
        case web.Declined(status, day):
            return f"{status // 100} {day is None}"
        case None:
            return "more"


MUX_SECRET = bytes(range(32))
MUX_HELLO = mux.Hello(bytes(16), True, 1, bytes(16), NOW_MS // 1000, 0, ((1, 5), (2, 0)))


def mux_greetings() -> Iterable[bytes]:
    """What both sides of the mux say first."""
    hello = mux.write_hello(MUX_HELLO, MUX_SECRET, 20)
    yield hello[mux.HEADER_BYTES :]
    for status in (mux.Status.NEW, mux.Status.GONE):
        welcome = mux.Welcome(status, NOW_MS // 1000, MUX_HELLO.counts)
        yield mux.write_welcome(welcome, MUX_SECRET, bytes(32))[mux.HEADER_BYTES :]


def hear_greeting(data: bytes) -> str | None:
    """As HELLO and as WELCOME, the latter with its proof made good."""
    wrong: list[MuxError] = []
    try:
        hello, said = mux.read_hello(data)
        assert len(hello.counts) <= mux.COUNTS_MAX
        assert said == data[-32:]
    except MuxError as error:
        wrong.append(error)
    body = data[:-32]
    good = hmac_digest(MUX_SECRET, b"outlast mux 1 server" + bytes(32) + sha256(body).digest(), "sha256")
    try:
        mux.read_welcome(body + good, MUX_SECRET, bytes(32))
    except MuxError as error:
        wrong.append(error)
    if len(wrong) == 2:
        raise wrong[0]
    return None


def mux_frames() -> Iterable[bytes]:
    """Frames of clients and servers."""
    where = address.encode(address.Target("site.example", 443))
    yield b"".join(
        (
            mux.frame(1, mux.Type.OPEN, where + b"early"),
            mux.data_frame(1, 5, b"more"),
            mux.data_frame(1, 12, b"too early"),
            mux.frame(1, mux.Type.CREDIT, mux.NUMBER.pack(1 << 20)),
            mux.frame(1, mux.Type.FINISH, mux.NUMBER.pack(21)),
            mux.count_frame(mux.Type.ACK, 1, 0),
            mux.frame(0, mux.Type.PING, bytes(8)),
            mux.frame(3, mux.Type.DATAGRAM, where + b"query"),
        )
    )
    yield b"".join(
        (
            mux.frame(1, mux.Type.ACCEPTED),
            mux.data_frame(1, 0, b"answer"),
            mux.frame(2, mux.Type.REFUSED, b"\5"),
            mux.count_frame(mux.Type.LOST, 2, 0),
            mux.frame(1, mux.Type.RESET),
            mux.frame(0, mux.Type.DONE),
            mux.frame(0, mux.Type.GOODBYE),
        )
    )


def hear_frames(data: bytes) -> str | None:
    """Either side hears them, in two pieces; what arrives of a stream is in order and nothing is beyond a bound."""
    wrong: list[MuxError] = []
    for client in (True, False):
        one = session.Session(client=client)
        for number in (1, 2):
            one.line_up(number, 0.0)
        if client:
            for _ in range(2):
                one.open(address.Target("site.example", 443), b"early", 0.0)
        middle = len(data) // 3
        try:
            for part in (data[:middle], data[middle:]):
                for event in one.receive(1, memoryview(part), 0.0):
                    if isinstance(event, session.Opened):
                        one.accept(event.stream, 0.0)
                    elif isinstance(event, session.Arrived):
                        one.consumed(event.stream, sum(map(len, event.pieces)), 0.0)
                for number in one.dirty():
                    one.take(number)
                one.tick(0.1)
        except MuxError as error:
            wrong.append(error)
        assert one.streams <= session.STREAMS_MAX
        assert one.retained >= 0
    if len(wrong) == 2:
        raise wrong[0]
    return None


def hear_hello(data: bytes) -> str | None:
    """A ClientHello, as a server has it before it answers."""
    found, name = tls.protocols_of(data), tls.name_at(data)
    if found:
        return None
    return "no hello" if found is None and name is None else "no protocols"


def client_hellos() -> list[bytes]:
    """What OpenSSL says first, with and without protocols; and what is no TLS at all."""
    hellos = [client_hello(protocols=offered) for offered in (["http/1.1"], ["h2", "http/1.1"], [])]
    return [b"GET / HTTP/1.1\r\nHost: site.example\r\n\r\n", *hellos]


TRANSPORT_LINES = (
    b"VERSION 1\nPROXY DONE\nCMETHOD obfs4 socks5 127.0.0.1:37347\nCMETHOD-ERROR snowflake none\nCMETHODS DONE",
    b"VERSION 1\nSMETHOD obfs4 [::1]:43734 ARGS:cert=abc,iat-mode=0\nSMETHOD-ERROR x no\nSMETHODS DONE\ns",
    b'VERSION 1\nSTATUS TYPE=version IMPLEMENTATION="l y" VERSION=0.1\nLOG SEVERITY=debug MESSAGE="a \\"b\\" \\101"',
    b"ENV-ERROR none",
)
TRANSPORT_ENVIRONMENTS = (
    b"MANAGED_TRANSPORT_VER=1\nSTATE_LOCATION=/s\nCLIENT_TRANSPORTS=obfs4,x\nPROXY=socks5://u:p%20@127.0.0.1:1",
    b"MANAGED_TRANSPORT_VER=1,2\nSTATE_LOCATION=/s\nSERVER_TRANSPORTS=obfs4\nORPORT=127.0.0.1:1\n"
    b"SERVER_BINDADDR=obfs4-[::1]:9\nSERVER_TRANSPORT_OPTIONS=obfs4:key=a\\;b;obfs4:k=v\n"
    b"EXTENDED_SERVER_PORT=127.0.0.1:2\nAUTH_COOKIE_FILE=/c",
)


def hear_child(data: bytes) -> str | None:
    """What a child of ours says on its output: no method that it names lies on another machine."""
    server = data[-1:] == b"s"
    demand = (
        pluggable.ServerDemand("/s", True, ("obfs4",), None)
        if server
        else pluggable.ClientDemand("/s", True, ("obfs4", "snowflake"))
    )
    contract = pluggable.Contract(demand)
    for line in data.split(b"\n"):
        contract.take(line)
        message = pluggable.read_line(line)
        if message is not None:
            written = pluggable.write_line(message)
            assert written.count(b"\n") == 1
    assert contract.methods.keys() <= set(demand.transports)
    assert server or all(found.at.host.startswith(("127.", "::1")) for found in contract.methods.values())
    return None if contract.ready else "not ready"


def read_demanded(data: bytes) -> str | None:
    """The environment that a parent gave us: what is read is written in the same meaning."""
    pairs = (line.partition("=") for line in data.decode("utf-8", "replace").split("\n"))
    demand = pluggable.read_demand({f"TOR_PT_{name}": value for name, _, value in pairs})
    with suppress(UsageError):
        assert pluggable.read_demand(pluggable.write_demand(demand))
    return None


def read_bridge_args(data: bytes) -> str | None:
    """Arguments of a bridge, as SOCKS carries them."""
    args = pluggable.decode_args(data[:255], data[255:] or b"\0")
    with suppress(UsageError):
        assert pluggable.decode_args(*pluggable.encode_args(args)) == args
    return None


TOR_LOG = (
    b"Nov 22 10:41:51.000 [notice] Bootstrapped 10% (conn_done): Connected to a relay\n"
    b"Nov 22 10:41:51.000 [notice] Opened Socks listener connection (ready) on 127.0.0.1:41617\n"
    b"Nov 22 10:41:51.000 [notice] Bootstrapped 100% (done): Done",
    b"[warn] Problem bootstrapping. Stuck at 5% (conn): Connecting to a relay. (Connection refused; CONNECTREFUSED;"
    b" count 1; recommendation warn; host 0F9D7B519324DFEB252398C491079F58AA932CCB at 192.0.2.1:1)",
    b'[warn] Managed proxy "/x": the bridge does not work: tls-mitm (the certificate)',
    b'[warn] Proxy Client: unable to connect OR connection (handshaking (proxy)) with 192.0.2.1:1 ("TTL expired")',
)


def follow_tor(data: bytes) -> str | None:
    """What a tor of ours logs: whatever it is, a person reads none of it but tor's own words for its steps."""
    progress = bootstrap.Bootstrap(0.0)
    for number, line in enumerate(data.split(b"\n")):
        progress.take(line, number)
    assert 0 <= progress.percent <= 100
    assert progress.step.isascii()
    assert progress.step.isprintable()
    told = str(BridgeError(progress.stalled(1e9) or progress.ended()))
    assert "192.0.2" not in told
    return None if progress.done else told


def receive_introduction(data: bytes) -> str | None:
    """How a transport introduces a stream; its proof is made good where the input asks for it."""
    proof = hmac.digest(bytes(32), b"ExtORPort authentication client-to-server hash" + bytes(64), sha256)
    receiver = Receiver(bytes(32), bytes(32))
    answer = receiver.take(data.replace(b"PROOF", bytes(32) + proof))
    assert len(answer) < 100
    return None if receiver.done else "not done"


def introduce(data: bytes) -> str | None:
    """What the Extended ORPort answers; its proof is made good where the input asks for it."""
    nonce, cookie = bytes(32), bytes(32)
    introducer = Introducer(cookie, Introduction("outlast"), nonce)
    if data[:1] == b"!":
        read_cookie(data)
        return None
    proof = hmac.digest(cookie, b"ExtORPort authentication server-to-client hash" + bytes(64), sha256)
    introducer.take(data.replace(b"PROOF", proof + bytes(32)))
    return None if introducer.done else "not done"


def read_bridge_fields(data: bytes) -> None:
    """A link of Outlast's for a bridge, whatever its fields are."""
    read_any_bridge(b"outlast://bridge/" + base64.urlsafe_b64encode(data))


def bridge_links() -> Iterable[bytes]:
    """A text of each form."""
    cert = base64.b64encode(bytes(range(52))).decode().rstrip("=")
    key = base64.b64encode(secret("key")).decode()
    yield f"Bridge obfs4 192.0.2.7:443 {'0123456789' * 4} cert={cert} iat-mode=0".encode()
    yield f"[2001:db8::7]:443 {'0123456789' * 4}".encode()
    yield f"ss://2022-blake3-aes-256-gcm:{key.replace('/', '%2F')}@192.0.2.7:443/?plugin=none#a%20name".encode()
    yield b"ss://YWVzLTEyOC1nY206dGVzdA@[2001:db8::7]:8888#name"
    yield b"ss://" + base64.b64encode(b"aes-256-gcm:p@ss/word@192.0.2.7:8443") + b"#old"
    yield b"<socks5h://us%3Aer:p%40ss@a.example:1080>"
    yield b"http://192.0.2.7:3128/"
    yield b"tricks://dns.example@192.0.2.7:443/dns-query"
    yield b"outlast://bridge/" + base64.urlsafe_b64encode(next(iter(bridge_fields())))


def bridge_fields() -> Iterable[bytes]:
    """The fields of both kinds."""
    yield packed(1, "web", "192.0.2.7", 443, "a.example", secret("user"), secret("pin"), b"", "a name")
    yield packed(1, "plugged", "192.0.2.7", 443, "snowflake", [["url", "x"]], secret("user"), secret("node"), "")
    yield packed(2, "web")


def read_resolver(data: bytes) -> None:
    """An answer over HTTPS to a question for addresses."""
    found = doh.read_answer(data, "www.example.com", doh.A)
    assert found.ttl_s > 0
    assert len(found.addresses) <= doh.ADDRESSES_MAX


def resolver_answers() -> Iterable[bytes]:
    """One with an alias, and one without an address."""
    question = doh.write_question("www.example.com", doh.A)
    head = question[:2] + b"\x81\x80" + question[4:6] + b"\0\2" + bytes(4) + question[12:]
    alias = b"\xc0\x0c\0\5\0\1\0\0\1\0\0\6\x03cdn\xc0\x10"
    yield head + alias + b"\x03cdn\xc0\x10\0\1\0\1\0\0\1\0\0\4\xc0\0\2\1"
    yield question[:2] + b"\x81\x83" + question[4:]


def cut_flight(data: bytes) -> str | None:
    """A first flight of TLS is cut without a loss, whatever stands in it."""
    size = fragment.flight_size(data)
    if not size or len(data) < size:
        return NO_INPUT
    flight = data[:size]
    name = fragment.name_of(flight)
    for trick in fragment.TRICKS:
        sent, body = b"".join(fragment.cut(flight, trick)), b""
        while sent:
            end = 5 + int.from_bytes(sent[3:5], "big")
            body, sent = body + sent[5:end], sent[end:]
        assert body == flight[5:]
    return None if name else "no name"


def contact_link() -> str:
    """Ada's."""
    ada = somebody("Ada")
    public = ada.prekey.public
    signature = sign_prekey(ada.signing, public, TODAY)
    return make_link(ada.device.certificate, public, TODAY, signature, bytes(16))


def contact_fields() -> Iterable[bytes]:
    """The fields of contact links, to be signed."""
    ada = somebody("Ada")
    for day in (TODAY, TODAY - 89, 0):
        yield packed(1, ada.device.certificate, ada.prekey.public, day, b"", bytes(16))


def parse_any_id(data: bytes) -> None:
    """A text is at most one of the three kinds of IDs, and is what is written for it, but for case and space."""
    text = text_of(data)
    took = 0
    for parse, write in ((parse_id, id_text), (parse_node, node_text), (parse_space, space_text)):
        try:
            found = parse(text)
        except UsageError as error:
            refused = error
            continue
        took += 1
        assert write(found).upper() == text.strip().upper()
    assert took < 2
    if not took:
        raise refused


def ids() -> Iterable[bytes]:
    """One of each kind."""
    return [write(secret("id")).encode() for write in (id_text, node_text, space_text)]


def read_words(data: bytes) -> None:
    """Words that are taken are those of what they give, in their order; shares of it look different each time."""
    text = text_of(data)
    entropy = entropy_of(text)
    left = iter(re.findall(r"[^\W\d]+", text.lower()))  # among them those of headings
    assert all(word in left for word in words_of(entropy)) or len(text.split()) >= SHARE_WORDS


WORDS = " ".join(words_of(secret("words")))
SHARES = generate_mnemonics(1, [(2, 3)], secret("words"), iteration_exponent=0)[0]


def read_header_texts(data: bytes) -> None:
    """A browser's cookies, and an address as people type it."""
    text = data.decode("latin-1")
    cookie_parser(text)
    host, port = address.read(text)
    assert host in text
    assert 0 <= port < 65_536


# ---- files from browsers ----


def media_files() -> Iterable[bytes]:
    """Films and recordings that tell something, each after the number of its format."""
    made = [recordings.film(), recordings.film(large=True, wide=True), recordings.ogg(), recordings.webm()]
    formats = (0, 0, 1, 2, 2, 3)
    for number, data in zip(formats, [*made, recordings.webm(is_live=True), recordings.mp3()], strict=True):
        yield bytes([number]) + data


def clean_media(data: bytes) -> None:
    """What a file tells is found, within bounds, and patched without changing its length."""
    patches = (isobmff.patches, ogg.patches, matroska.patches, id3.patches)[data[0] % 4 if data else 0]
    file = data[1:]
    found = patches(lambda start, size: file[start : start + size], len(file))
    assert sum(map(len, patched([file], found))) == len(file)


def file_forms() -> Iterable[bytes]:
    """Forms with a file, as browsers send them."""
    field = b'--b\r\ncontent-disposition: form-data; name="csrf"\r\n\r\nabc\r\n'
    head = b'--b\r\ncontent-disposition: form-data; name="file"; filename="%b"\r\ncontent-type: a/b\r\n\r\n%b\r\n'
    yield field + head % (b"x.jpg", b"photo") + b"--b--\r\n"
    yield field + head % (b"", b"") + head % (b"y", b"--b" * 9) + field + b"--b--\r\n"


def read_form(data: bytes) -> None:
    """A form that comes in two parts gives a file or one line."""
    parts = [
        {"type": "http.request", "body": data[:40], "more_body": True},
        {"type": "http.request", "body": data[40:], "more_body": False},
    ]

    async def receive() -> Message:
        return parts.pop(0)

    async def read() -> None:
        headers = [(b"content-type", b"multipart/form-data; boundary=b")]
        coming = await arriving(Request({"type": "http", "method": "POST", "headers": headers}, receive))
        size = 0
        async for piece in coming.data:
            size += len(piece)
        assert size <= len(data)

    asyncio.run(read())


# ---- the program itself ----


def manifests() -> Iterable[bytes]:
    """A manifest and an index, as a neighbour may send them."""
    files = [ReleaseFile("install.py", 3, "0" * 64), ReleaseFile("wheels/plain-1.0-py3-none-any.whl", 70_000, "a" * 64)]
    return [write_manifest("1.2.3", files), write_manifest("0.0.1", []), write_index(files), b"[" * 2000]


def read_release_lists(data: bytes) -> None:
    """What is taken names files below the folder, of a bounded size."""
    read = read_manifest(data)
    assert all(".." not in Path(file.path).parts and not Path(file.path).is_absolute() for file in read.files)
    assert read_manifest(write_manifest(read.version, read.files)).version == read.version


def release_signatures() -> Iterable[bytes]:
    """Two signatures and what is nearly some."""
    first = sign_release(SigningKey.from_seed(bytes(32)), b"manifest")
    return [first, sign_release(SigningKey.from_seed(bytes(31) + b"x"), b"manifest", first), b'{"signatures": []}']


def read_release_signatures(data: bytes) -> None:
    """Nothing that was not signed counts."""
    assert signers(b"another manifest", data, [SigningKey.from_seed(bytes(32)).public]) == set()


# ---- mail ----


def sealed_letter() -> SealedLetter:
    """A letter with all that a letter can have."""
    bob = somebody("Bob")
    body = TEXT.encode(Text("hello", bytes(16)))
    return SealedLetter(
        id=bytes(16),
        kind=TEXT.name,
        sent_ms=NOW_MS,
        life_ms=5,
        prekey=bob.prekey.public,
        prekey_day=TODAY,
        body=body,
    )


def envelope(letter: SealedLetter) -> Entry:
    """Bob's letter to Ada."""
    ada, bob = somebody("Ada"), somebody("Bob")
    key = mail.direction_key(bob.seal, bob.device, ada.device)
    return mail.seal_letter(
        letter,
        key=key,
        counter=0,
        sender=bob.device,
        sender_seal=bob.seal,
        receiver=ada.device,
        prekey=ada.prekey.public,
        now_ms=NOW_MS,
        rand=stream("letter"),
    )


def letters() -> Iterable[bytes]:
    """Letters as they lie in an envelope, padded."""
    for letter in (sealed_letter(), replace_letter(prekey=None, prekey_day=None), replace_letter(body=b"")):
        data = msgspec.msgpack.encode(letter)
        yield len(data).to_bytes(2, "big") + data + bytes(40)


def replace_letter(**fields: Any) -> SealedLetter:
    """The letter with other fields."""
    return msgspec.structs.replace(sealed_letter(), **fields)


def decode_letter(data: bytes) -> None:
    """A letter that is taken is within the bounds of one that is sent."""
    letter = mail._decode_letter(data)
    mail._encode_letter(letter)


def decode_letter_fields(data: bytes) -> None:
    """The same behind a true length."""
    decode_letter(len(data[:65_535]).to_bytes(2, "big") + data[:65_535])


def put_into_envelope(payload: bytes) -> Entry:
    """An envelope with this payload."""
    made = envelope(sealed_letter())
    header = msgspec.structs.replace(made.header, payload_hash=sha256(payload).digest(), payload_size=512)
    data = encode_header(header)
    return Entry(header, data, made.signature, entry_id(data), payload)


def associated(sender: Device | None) -> bytes:
    """What Ada's envelopes are bound to."""
    author = envelope(sealed_letter()).header.author
    return mail._associated(sender, somebody("Ada").device, author, TODAY)


def open_raw_letter(data: bytes) -> None:
    """The payload of an envelope as anybody can make it."""
    ada, bob = somebody("Ada"), somebody("Bob")
    made = put_into_envelope(data)
    try:
        mail.open_letter(made, prekeys=(ada.prekey,), sender=bob.device, receiver=ada.device)
    except MailError:
        mail.open_introduction(made, intro_secret=bytes(16), prekeys=(ada.prekey,), receiver=ada.device)


def places() -> Iterable[bytes]:
    """Where bodies lie apart."""
    yield msgspec.msgpack.encode(mail.seal_body(b"hello", now_ms=NOW_MS, rand=stream("body"))[1])


def read_letter_place(data: bytes) -> None:
    """What a hostile contact says of where a body is."""
    place = mail.read_place(data)
    assert (len(place.tag), len(place.hash), len(place.key)) == (16, 32, 32)
    mail.open_body(mail.seal_body(b"hello", now_ms=NOW_MS, rand=stream("body"))[0], place)


def bodies_apart() -> Iterable[bytes]:
    """Bodies as they lie in an envelope, padded."""
    yield (5).to_bytes(2, "big") + b"hello" + bytes(457)


def open_raw_body(data: bytes) -> None:
    """What a hostile contact seals as a body."""
    made, place = mail.seal_body(b"", now_ms=NOW_MS, rand=stream("body"))
    aad = mail._associated(None, None, made.header.author, TODAY)
    payload = (made.payload or b"")[:32] + mail._body_cipher(place.key).encrypt(bytes(12), data, aad)
    header = msgspec.structs.replace(made.header, payload_hash=sha256(payload).digest(), payload_size=512)
    altered = Entry(header, made.header_bytes, made.signature, made.id, payload)
    mail.open_body(altered, mail.Place(place.tag, header.payload_hash, place.key))


def raw_payloads() -> Iterable[bytes]:
    """A letter's and an introduction's."""
    yield envelope(sealed_letter()).payload or b""
    yield introduction().payload or b""


def introduction() -> Entry:
    """Bob's first letter to Ada."""
    ada, bob = somebody("Ada"), somebody("Bob")
    return mail.seal_introduction(
        sealed_letter(),
        intro_secret=bytes(16),
        sender=bob.device,
        sender_seal=bob.seal,
        receiver=ada.device,
        counter=5,
        prekey=ada.prekey.public,
        now_ms=NOW_MS,
        rand=stream("letter"),
    )


def seal_to_ada(data: bytes, **arguments: Any) -> bytes:
    """Sealed for Ada's prekey."""
    public = somebody("Ada").prekey.public
    return hpke.seal(public, data, ephemeral=secret("ephemeral"), **arguments) or b""


def open_sealed_letter(data: bytes) -> None:
    """What a hostile contact seals."""
    ada, bob = somebody("Ada"), somebody("Bob")
    payload = seal_to_ada(data, info=mail._INFO, aad=associated(bob.device), sender=bob.seal)
    mail.open_letter(put_into_envelope(payload), prekeys=(ada.prekey,), sender=bob.device, receiver=ada.device)


def open_made_introduction(data: bytes) -> str | None:
    """What a hostile stranger with Ada's link seals: certificate, its length's lie, and the letter inside."""
    found = parts_of(data, bytes, int, bytes)
    if found is None:
        return NO_INPUT
    certificate, lie, letter = found
    ada, bob = somebody("Ada"), somebody("Bob")
    inner = seal_to_ada(letter, info=mail._INFO, aad=associated(bob.device), sender=bob.seal)
    head = ((len(certificate) + lie) % 2**16).to_bytes(2, "big")
    payload = seal_to_ada(
        head + certificate + inner,
        info=mail._INTRO_INFO,
        aad=associated(None),
        psk=mail.derive(bytes(16), mail._INTRO_PSK_LABEL, mail._party(ada.device)),
        psk_id=mail._INTRO_PSK_ID,
    )
    mail.open_introduction(
        put_into_envelope(payload), intro_secret=bytes(16), prekeys=(ada.prekey,), receiver=ada.device
    )
    return None


# ---- bundles ----


@cache
def bundle_file(sealed: bool) -> bytes:
    """A bundle of all forms of entries."""
    ada, bob = somebody("Ada"), somebody("Bob")
    if sealed:
        writer = BundleWriter.sealed(
            [(ada.device.device, ada.prekey.public)],
            certificate=bob.device.certificate,
            signer=bob.signing,
            number=3,
            made_day=TODAY,
            rand=stream("bundle"),
            acks={ada.device.device: (1, 2)},
            entries=len(entries()),
        )
    else:
        writer = BundleWriter.open(made_day=TODAY)
    content = bundle.Content.of(entries()[0].id, 1, bytes(1000))
    return b"".join((writer.start(), *map(writer.add, entries()), writer.add_content(content), *writer.finish()))


def bundle_starts() -> Iterable[bytes]:
    """The beginnings of bundles; a whole one has more bytes than an input."""
    for sealed in (True, False):
        yield bundle_file(sealed)[:400]


def pieces_of(data: bytes, sizes: Iterable[int]) -> Iterable[bytes]:
    """``data`` cut into pieces of these sizes, and the rest."""
    at = 0
    for size in sizes:
        yield data[at : at + size]
        at += size
        if at >= len(data):
            return
    yield data[at:]


def read_bundle(data: bytes, sizes: Iterable[int]) -> str | None:
    """What a bundle gives does not depend on how its bytes come."""
    found = []
    for cut in (sizes, ()):
        reader = BundleReader((somebody("Ada").prekey,), somebody("Ada").device.device)
        try:
            items = [item for piece in pieces_of(data, cut) for item in reader.feed(piece)]
            summary = reader.finish()
        except BundleError as error:
            found.append((str(error), 0))
            continue
        if summary.whole:  # damage behind the last record loses nothing
            assert not summary.malformed
        found.append((summary, len(items)))
    assert str(found[0]) == str(found[1])
    summary_or_line, items_count = found[0]
    return None if items_count else str(summary_or_line)


def read_raw_bundle(data: bytes) -> str | None:
    """A file that begins as an input does and goes on as a bundle."""
    file = bundle_file(data[9:10] == b"\0")
    return read_bundle(data + file[len(data) :], [1] * 20 + [len(data) or 1, 65_536])


def read_chunks(data: bytes) -> str | None:
    """What a writer of good chunks with anything in them does: whether sealed, chunks, sizes of pieces.

    A chunk is ``[where its first record begins, whether the last, its data, number of its place]``. What fills it up is
    no record: zeros are 13,000 empty ones, and an input would take as long as a hundred others.
    """
    found = parts_of(data, bool, list, list)
    if found is None:
        return NO_INPUT
    is_sealed, chunks, sizes = found
    head = bundle_file(is_sealed)[: 330 if is_sealed else 10]
    cipher = sealing_of(is_sealed, head)
    made = []
    for chunk in chunks[:6]:
        if not isinstance(chunk, list) or [type(part) for part in chunk] != [int, bool, bytes, int]:
            return NO_INPUT
        first, final, content, place = chunk
        data = content[: bundle.DATA_BYTES].ljust(bundle.DATA_BYTES, b"\xff")
        plaintext = bytearray((first % 2**16).to_bytes(2, "big") + data)
        made.append(cipher.close(plaintext, place % 2**40, final))
    cuts = [size for size in sizes if type(size) is int and size > 0][:40]
    return read_bundle(head + b"".join(made), cuts)


@cache
def sealing_of(is_sealed: bool, head: bytes) -> Any:
    """The cipher of the chunks behind a bundle's head."""
    if not is_sealed:
        return bundle._OpenChunks(head)
    for at in range(10, len(head), 80):
        key = hpke.unseal(somebody("Ada").prekey, head[at : at + 80], info=bundle._INFO, aad=head[:10])
        if key is not None:
            return bundle._SealedChunks(key, head[:10])
    raise AssertionError("no slot is Ada's")


def chunks() -> Iterable[bytes]:
    """The chunks of bundles, opened, and of one whose records run over the end of a chunk."""
    for is_sealed in (True, False):
        file = bundle_file(is_sealed)
        head = file[: 330 if is_sealed else 10]
        plaintext = sealing_of(is_sealed, head).open(file[len(head) :], 0, True)
        content = plaintext[2:].rstrip(b"\0")
        yield packed(is_sealed, [[0, True, content, 0]], [5, 300, 70_000])
        long = content[: content.index(b"opaque") - 300]
        size = bundle.DATA_BYTES - len(long)
        filler = (size + 95).to_bytes(4, "big") + b"\x09"
        yield packed(is_sealed, [[0, False, long + filler, 0], [100, True, content, 1]], [1000])


# ---- passphrases ----


def open_key_slot(data: bytes) -> str | None:
    """A slot whose check holds; costs that an honest one may have are made small."""
    cost = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if 1 <= cost[0] <= keyslot.PASSES_MAX and 8 <= cost[1] <= keyslot.MEMORY_MAX_KIB:
        data = data[:16] + b"\0\0\0\1\0\0\0\x08" + data[24:]
    keyslot.open_slot(data + sha256(data).digest()[:8], PASSPHRASE)
    return None


def open_raw_slot(data: bytes) -> None:
    """A slot and a backup as they lie in a file."""
    try:
        keyslot.open_slot(data, PASSPHRASE)
    except StorageError:
        backup.open_backup(data, PASSPHRASE)


CHEAP = keyslot.Cost(1, 8)


def slots() -> Iterable[bytes]:
    """A slot, and one for another passphrase."""
    for passphrase in (PASSPHRASE, "other"):
        yield keyslot.seal_slot(bytes(32), passphrase, salt=bytes(16), nonce=bytes(24), cost=CHEAP)


def open_backup_body(data: bytes) -> None:
    """What somebody with the passphrase, or a later version, put into a backup."""
    file = keyslot.seal(backup._MAGIC, data, PASSPHRASE, salt=bytes(16), nonce=bytes(24), cost=CHEAP)
    backup.count(backup.open_backup(file, PASSPHRASE))


def open_backup_fields(data: bytes) -> None:
    """The same behind a true length."""
    open_backup_body(len(data).to_bytes(4, "big") + data)


def backup_bodies() -> Iterable[bytes]:
    """The fields of a backup."""
    ada, bob = somebody("Ada").device, somebody("Bob").device
    device = backup.BackupDevice(bob.certificate, True, None, bytes(32), TODAY)
    contact = backup.BackupContact(bob.identity, "Bob", 5, False, NOW_MS, bytes(16), [device])
    rows = backup.TableRows(["n", "text"], [[1, "x"], [2, None], [3, b"y"]])
    held = backup.RoomRows(1, {"local_carry_message": rows})
    ended = backup.BackupRevocation(revocation.revoke(somebody("Ada").identity, bob.device), NOW_MS)
    head = backup.BackupHead(ada.device, secret("space"), 3, 4, secret("entry"))
    yield msgspec.msgpack.encode(
        backup.BackupBody(1, NOW_MS, bytes(32), "Ada", [ada.certificate], [contact], {"carry": held}, [ended], [head])
    )


# ---- links ----


def read_preamble(data: bytes) -> str | None:
    """A preamble that is taken was incomplete, and not wrong, at each byte before its end."""
    found = parse_preamble(data)
    if found is None:
        return "incomplete"
    assert all(parse_preamble(data[:end]) is None for end in range(len(data)))
    assert encode_preamble(found.pattern, found.versions) == data
    return None


def read_frames(data: bytes) -> str | None:
    """Frames do not depend on how their bytes come; input: role and size of pieces, then the stream."""
    size = data[1] + 1 if len(data) > 1 else 1
    found: list[list[bytes] | str] = []
    for step in (size, len(data) + 1):
        reader = FrameReader(initiator=bool(data[:1] > b"\x7f"))
        messages: list[bytes] = []
        try:
            for at in range(2, len(data), step):
                messages += reader.feed(data[at : at + step])
        except FrameError as error:
            found.append(str(error))
        else:
            found.append(messages)
        assert len(reader._rest) < 2 + 65_535 + step
    assert found[0] == found[1]
    if isinstance(found[0], str):
        return found[0]
    return None if found[0] else "incomplete"


def frames() -> Iterable[bytes]:
    """A handshake's frames and some after them."""
    for role in (b"\x00\x07", b"\xff\x40"):
        yield role + b"".join(encode_frame(bytes(size)) for size in (32, 96, 16, 400))


def shaker(pattern: Pattern, initiator: bool) -> Handshake:
    """One end of a handshake; the same keys in every run."""
    other = SealingKey.from_secret(secret("static", False)).public
    return Handshake(
        pattern,
        initiator=initiator,
        prologue=b"prologue",
        static=secret("static", initiator),
        ephemeral=secret("ephemeral", initiator),
        remote_static=other if initiator and pattern is Pattern.XK else None,
        psk=bytes(32) if pattern is Pattern.XXPSK0 else None,
    )


def shake(data: bytes) -> str | None:
    """A handshake with an end that sends what the input holds."""
    found = parts_of(data, int, bool, list)
    if found is None or not all(isinstance(message, bytes) for message in found[2]):
        return NO_INPUT
    number, initiator, messages = found
    handshake = shaker(Pattern(number % 3), initiator)
    arriving = iter(messages[:4])
    writing = initiator
    while not handshake.done:
        if writing:
            assert len(handshake.write(b"payload")) <= 4096
        else:
            message = next(arriving, None)
            if message is None:
                return "incomplete"
            handshake.read(message)
        writing = not writing
    assert handshake.remote_static is not None
    handshake.split()
    for message in arriving:
        handshake.read(message)
    return None


def handshakes() -> Iterable[bytes]:
    """What each end of each handshake is sent."""
    for pattern in Pattern:
        ends = shaker(pattern, True), shaker(pattern, False)
        sent: tuple[list[bytes], list[bytes]] = ([], [])
        turn = 0
        while not (ends[0].done and ends[1].done):
            message = ends[turn].write(b"payload")
            ends[1 - turn].read(message)
            sent[turn].append(message)
            turn = 1 - turn
        yield packed(int(pattern), True, sent[1])
        yield packed(int(pattern), False, sent[0])


def hear(data: bytes) -> str | None:
    """The text of a TXT record, from the network to what is made of it."""
    info = AsyncServiceInfo(lan.SERVICE, f"x.{lan.SERVICE}", properties=data)
    said = beacon.read_fields(info.properties)
    if said is None:
        return "no announcement"
    assert len(said.beacons) <= beacon.BEACONS_MAX
    beacon.recognise(said, {bytes(32): bytes(32)}, (IPv4Address(1), 1))
    return None


def announcements() -> Iterable[bytes]:
    """TXT records of nodes with few and many neighbours."""
    for neighbours in (0, 9, 120):
        keys = [secret("key", number) for number in range(neighbours)]
        said = beacon.announce(secret("node"), keys, (IPv4Address(1), 1), stream("lan"), strangers=neighbours == 9)
        fields = [name + b"=" + value for name, value in beacon.to_fields(said).items()]
        yield b"".join(bytes([len(field)]) + field for field in fields)


class OneWay:
    """A link that brings these pieces and takes nothing."""

    kind = "one way"
    mtu = 1
    bits_per_s = 1
    duplex = Duplex.HALF
    cost = Cost.FREE
    address = "nowhere"

    def __init__(self, pieces: Iterable[bytes]) -> None:
        """Open until the pieces are through."""
        self._pieces = iter(pieces)

    async def send(self, _data: bytes) -> None:
        """Nothing is ever sent."""

    async def receive(self) -> bytes:
        """The next piece."""
        return next(self._pieces, b"")

    async def close(self) -> None:
        """Nothing is held."""


def channel_reader() -> Run:
    """Messages of a link: ``[[Noise plaintexts: bytes, their size, or [sealed bytes]], size of pieces]``."""
    loop = asyncio.new_event_loop()

    async def receive(sealed: bytes, size: int) -> str | None:
        opened = Opened(Transport(bytes(32), b"\1" * 32), FrameReader(initiator=True), [], Pattern.XX, None, bytes(32))
        opened.frames.feed(encode_frame(bytes(32)))  # the handshake's
        link = OneWay(sealed[at : at + size] for at in range(0, len(sealed), size))
        channel = Channel(link, opened, initiator=True)
        took = 0
        try:
            while (message := await channel.receive()) is not None:
                assert 1 <= len(message) <= MESSAGE_MAX_BYTES
                took += 1
        finally:
            await channel.close()
            assert len(channel._partial) <= MESSAGE_MAX_BYTES
        return None if took else "incomplete"

    def run(data: bytes) -> str | None:
        found = parts_of(data, list, int)
        if found is None:
            return NO_INPUT
        other = Transport(b"\1" * 32, bytes(32))
        sealed = b""
        for part in found[0][:20]:
            if type(part) is int:
                part = bytes(part % (PLAINTEXT_MAX_BYTES + 1))
            if isinstance(part, bytes):
                sealed += encode_frame(other.encrypt(part))
            elif isinstance(part, list) and part and isinstance(part[0], bytes):
                sealed += part[0]
            else:
                return NO_INPUT
        return loop.run_until_complete(receive(sealed, max(1, abs(found[1]) % 2**20, len(sealed) // 50)))

    return run


def channel_messages() -> Iterable[bytes]:
    """Short messages, long ones, signs of life, and one too long."""
    yield packed([b"hello", b"", b"more"], 3)
    yield packed([PLAINTEXT_MAX_BYTES, PLAINTEXT_MAX_BYTES, b"end"], 1000)
    yield packed([PLAINTEXT_MAX_BYTES] * 15 + [65_000], 70_000)
    yield packed([PLAINTEXT_MAX_BYTES] * 18, 70_000)
    yield packed([b"x", [bytes(40)]], 10)


# ---- reconciliation and sessions ----


@cache
def view(first: int, size: int) -> SetView:
    """A set of so many items."""
    return SetView.from_items((NOW_MS + number // 3, secret("item", number)) for number in range(first, first + size))


def respond(data: bytes) -> None:
    """The answer to any message is bounded by what its documentation says."""
    for limit in (0, 4096):
        ours = view(0, 300)
        reply = Responder(ours, frame_size_limit=limit).step(data)
        assert len(reply) <= (limit or 32 * len(ours) + 90 * len(data) + 1)


def initiate(data: bytes) -> str | None:
    """Whatever the responder answers; what is told is told once."""
    found = parts_of(data, bool, list)
    if found is None or not all(isinstance(message, bytes) for message in found[1]):
        return NO_INPUT
    limited, messages = found
    machine = Initiator(view(0, 300), seed=secret("cuts"), frame_size_limit=4096 if limited else 0)
    machine.initiate()
    told: list[bytes] = []
    for message in messages[:8]:
        step = machine.step(message)
        told += step.have + step.need
        assert len(told) == len(set(told))
        assert all(len(one) == 32 for one in told)
        assert not limited or len(step.reply or b"") <= 4096
        if step.reply is None:
            return None
    return "not finished"


def reconciliations() -> tuple[list[bytes], list[bytes]]:
    """Inputs for both sides, out of honest reconciliations."""
    questions, answers = [], []
    for limited in (False, True):
        limit = 4096 if limited else 0
        for ours, theirs in ((300, 320), (300, 5), (0, 300), (300, 300)):
            responder = Responder(view(10, theirs), frame_size_limit=limit)
            machine = Initiator(view(0, ours), seed=secret("cuts"), frame_size_limit=limit)
            question: bytes | None = machine.initiate()
            sent = []
            while question is not None:
                questions.append(question)
                sent.append(responder.step(question))
                question = machine.step(sent[-1]).reply
            if ours == 300:
                answers.append(packed(limited, sent[:8]))
    return questions, answers


@cache
def met(number: int) -> Town:
    """Two places that share some of what each holds; in the second one nothing is shared, in the third all is."""
    town = Town(2, number)
    first, second = town.places
    space = first.found("news")
    town.follow(space)
    second.entries.update(first.entries)
    for post in range(24):
        town.clock.advance(1000)
        writer = (first, second)[post % 2]
        note = writer.post(space, ("long " * 400 if post % 5 == 0 else "short ") + str(post), life_days=1 + post % 4)
        if number == 2 or (number == 0 and post % 3):
            for place in town.places:
                place.entries[note.id] = note
    header = second.post(space, "long " * 500)
    first.entries[header.id] = msgspec.structs.replace(header, payload=None)
    for place in town.places:
        place.post_file(space, b"".join(secret(number, place.name, at) for at in range(5000)))
    return town


def places_of(number: int) -> list[Place]:
    """The two places, to be changed by one input."""
    made = []
    for original in met(number).places:
        place = copy.copy(original)
        place.shelf, place.copies = MemoryShelf(), {}
        place.shelf.append(list(original.entries.values()))
        place.refused, place.listeners, place.content_listeners = [], [], []
        place.downloads, place.files = Downloads(), list(original.files)
        place.chunks = {one: dict(chunks) for one, chunks in original.chunks.items()}
        place.random = copy.copy(original.random)
        made.append(place)
    return made


class AtOnce(Meeting):
    """A meeting of which each side does at once what it wants of its store, so that it can be repeated by half."""

    def __init__(self, number: int) -> None:
        """Greet from both sides."""
        first, second = places_of(number)
        super().__init__((first, second), MemoryLink(first.clock), seed=number)

    def hear(self, end: int, event: Event) -> None:
        """Bring one event to a side."""
        self.feed(end, event)
        queues = (
            ("answer", self._answers),
            ("ingest", self._ingests),
            ("news", self.news),
            ("news", self.content_news),
        )
        while any(queue[end] for _, queue in queues):
            for what, queue in queues:
                if queue[end]:
                    self._happen(end, what)

    def talk(self) -> None:
        """Go on until neither side has anything to say."""
        heard = True
        while heard:
            heard = False
            for end in (0, 1):
                while (message := self.link.receive(end)) is not None:
                    self.hear(end, MessageArrived(message))
                    heard = True


def hold_session(data: bytes) -> str | None:
    """A session with a neighbour that sends any messages in any state: ``[number of the town, end, messages]``.

    A message is bytes; a number stands for another event. The machine raises nothing and sends no message above 1 MiB.
    """
    found = parts_of(data, int, int, list)
    if found is None:
        return NO_INPUT
    number, end, messages = found
    meeting, end = AtOnce(number % 3), end % 2
    for message in messages[:80]:
        if isinstance(message, bytes):
            meeting.hear(end, MessageArrived(message))
        elif type(message) is int and message % 5 < 2:
            meeting.hear(end, Tick(abs(message) % 10_000_000))
        elif type(message) is int:
            meeting.hear(end, (Stopping(), LinkClosed(), LocalAppended(()))[message % 3])
        else:
            return NO_INPUT
    for sender, sent in meeting.log:
        assert sender != end or 1 <= len(sent) <= 2**20
    how = meeting.ended[end]
    if isinstance(how, Close | CutOff):
        return str(how.reason)
    return None if meeting.in_step[end] else "not finished"


def sessions() -> Iterable[bytes]:
    """What honest neighbours send, from each side, of each town."""
    for number in range(3):
        meeting = AtOnce(number)
        meeting.talk()
        assert meeting.in_step == [True, True]
        for end in (0, 1):
            # Pieces of files alone would fill more than an input.
            sent = [message for sender, message in meeting.log if sender != end and len(message) <= 4096]
            half = len(sent) // 2
            yield packed(number, end, sent)
            yield packed(number, end, [*sent[:half], 0, 2, *sent[half:], 5_000_000])


# ---- the local API ----


def api() -> Run:
    """Requests to the local API, up to where an operation would be carried out: ``[method, path, query, body]``."""

    async def nothing(_call: object) -> None:
        return None

    node: Any = SimpleNamespace(rooms={"carry": ROOM})
    local = LocalApi(node)
    local._paths = {path: replace(operation, run=nothing) for path, operation in local._paths.items()}

    def run(data: bytes) -> str | None:
        found = parts_of(data, str, str, bytes, bytes)
        if found is None:
            return NO_INPUT
        method, path, query, body = found
        if path == "/metrics":
            return NO_INPUT
        arriving = [{"body": body[: len(body) // 2], "more_body": True}, {"body": body[len(body) // 2 :]}]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return arriving.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": method, "path": path, "query_string": query, "headers": []}
        at_once(local(scope, receive, send))
        status, answer = sent[0]["status"], sent[1]["body"]
        assert status < 500, answer
        return None if status == 200 else json.loads(answer)["error"]

    return run


def at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """Carry out what waits for nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")


def requests() -> Iterable[bytes]:
    """Requests of several kinds."""
    bodies = {
        "contact/add": {"link": contact_link(), "name": "Bob"},
        "carry/send": {"to": id_text(secret("id")), "text": "hello"},
        "peer/add": {"address": "192.0.2.1:8485", "node": node_text(secret("id"))},
        "carry/inbox": {},
    }
    for name, body in bodies.items():
        yield packed("POST", f"/api/v1/{name}", b"", json.dumps(body).encode())
    yield packed("GET", "/api/v1/carry/inbox", b"limit=3&before=4", b"")
    yield packed("POST", "/api/v1/carry/inbox", b"", b'{"limit": 1e9, "a": "\\ud800"}')
    yield packed("GET", "/api/v1/openapi.json", b"", b"")


def check_form(data: bytes) -> str | None:
    """A form that comes in pieces, its length, and its token: ``[length, size of pieces, body]``."""
    found = parts_of(data, str, int, bytes)
    if found is None:
        return NO_INPUT
    length, size, body = found
    size = max(1, size % 2048)
    arriving = [{"body": body[at : at + size], "more_body": True} for at in range(0, len(body), size)]
    arriving.append({"body": b"", "more_body": False})

    async def receive() -> dict[str, Any]:
        return arriving.pop(0)

    headers = gate.Headers(raw=[(b"content-length", length.encode("latin-1", "replace"))])

    async def read() -> None:
        start, again = await gate.beginning(gate.limited(receive, 8192, headers), gate.CSRF_PREFIX_BYTES)
        gate.typed_in(start)
        gate.check_token(start, "x" * 43)
        read_again = b""
        while True:
            message = await again()
            read_again += message["body"]
            if not message["more_body"]:
                break
        assert read_again == body

    asyncio.run(read())
    return None


def forms() -> Iterable[bytes]:
    """An ordinary form and an upload."""
    yield packed("100", 50, b"csrf=" + b"x" * 43 + b"&name=Bob")
    upload = b'--b\r\ncontent-disposition: form-data; name="csrf"\r\n\r\n' + b"x" * 43 + b"\r\n--b--\r\n"
    yield packed("0", 1000, upload)
    yield packed("²", 1, b"csrf=")


SHADOWSOCKS_METHOD, SHADOWSOCKS_KEY = "2022-blake3-aes-128-gcm", bytes(16)
SHADOWSOCKS_BUFFERS = memoryview(bytearray(1 << 18)), memoryview(bytearray(1 << 19))


def shadowsocks(name: str) -> Sip022:
    """The newer edition, with a clock that stands."""
    password = base64.b64encode(SHADOWSOCKS_KEY).decode()
    return Sip022(SHADOWSOCKS_METHOD, password, stream(name), lambda: NOW_MS / 1000)


def older_shadowsocks(name: str) -> Sip004:
    """The older edition."""
    return Sip004("aes-128-gcm", "secret", stream(name), lambda: NOW_MS / 1000)


def shadowsocks_streams() -> Iterable[bytes]:
    """What clients of both editions say first."""
    for cipher in (shadowsocks("client"), older_shadowsocks("client")):
        sealer, _ = cipher.request(address.Target("site.example", 443))
        yield sealer.end()


def accept_shadowsocks(data: bytes) -> None:
    """Either edition's server hears it; an end may come anywhere."""
    wrong: list[ShadowsocksError] = []
    for cipher in (shadowsocks("server"), older_shadowsocks("server")):
        try:
            cipher.acceptor(Replays(b"k", capacity=4)).feed(data, *SHADOWSOCKS_BUFFERS)
        except ShadowsocksError as error:
            wrong.append(error)
    if len(wrong) == 2:
        raise wrong[0]


def shadowsocks_headers() -> Iterable[bytes]:
    """The two headers of a client, unsealed, and what it says then."""
    where = address.encode(address.Target("site.example", 443))
    now = int(NOW_MS / 1000).to_bytes(8, "big")
    for said in (b"", b"hello"):
        variable = where + (3).to_bytes(2, "big") + b"pad" + said
        yield packed(b"\0" + now + len(variable).to_bytes(2, "big"), variable, b"more")
        yield packed(b"\0" + now + (0).to_bytes(2, "big") + variable, variable, b"")


def accept_shadowsocks_headers(data: bytes) -> str | None:
    """Headers behind good seals, those of a stream and, as they stand, those of a packet."""
    found = parts_of(data, bytes, bytes, bytes)
    if found is None or len(found[1]) > 0xFFFF or not 0 < len(found[2]) <= 0xFFFF:
        return NO_INPUT
    salt = secret(data)[:16]
    aead = AESGCM(session_key(SHADOWSOCKS_KEY, salt))
    plain = [found[0], found[1], len(found[2]).to_bytes(2, "big"), found[2]]
    sealed = [aead.encrypt(number.to_bytes(12, "little"), part, None) for number, part in enumerate(plain)]
    header = secret(data)[16:]
    packet = AESGCM(session_key(SHADOWSOCKS_KEY, header[:8])).encrypt(header[4:], found[0], None)
    block = Cipher(algorithms.AES(SHADOWSOCKS_KEY), modes.ECB()).encryptor().update(header)
    try:
        shadowsocks("server").packet_server().open(block + packet, 0)
    except ShadowsocksError:
        acceptor = shadowsocks("server").acceptor(Replays(b"k", capacity=4))
        acceptor.feed(salt + b"".join(sealed), *SHADOWSOCKS_BUFFERS)
    return None


def encoded(texts: Iterable[str]) -> Callable[[], Iterable[bytes]]:
    """Seeds that are text."""
    return lambda: [text.encode() for text in texts]


def route_files() -> Iterable[bytes]:
    """A file of each type of MRT record."""
    return mrt_files.everything().values()


def read_routes(data: bytes) -> str | None:
    """A file of a route collector: whatever it holds, its counts fit to what was read."""
    summary = mrt.summarise([data[:100], data[100:]])
    assert summary.records <= len(data) // 12
    assert summary.prefixes <= summary.announced + summary.withdrawn
    return summary.damage


def series_files() -> Iterable[bytes]:
    """A file of each format of series."""
    day = [f"2026-01-{1 + hour // 24:02d} {hour % 24:02d}:00:00" for hour in range(100)]
    ioda = {"entityType": "country", "entityCode": "IR", "datasource": "bgp", "from": 1_767_225_600, "step": 3600}
    yield "\n".join(["Time (UTC),BGP,Mozilla", *(f"{at},{99 if at < day[80] else 3}," for at in day)]).encode()
    yield json.dumps({"data": [[ioda | {"values": [*range(9), None]}]]}).encode()
    yield b"# Tor\ndate,country,users,lower,upper,frac\n2020-08-08,by,5000,4000,6000,70\n2020-08-09,by,8000,,,70\n"
    yield b'{"v":0,"result":[{"measurement_start_day":"2021-07-09","ok_count":70,"measurement_count":105}]}'
    yield b"measurement_start_day,ok_count,measurement_count\n2021-07-09,70,105\n"
    yield b"iso,name_1,name_2,time_e,connectivity\nIRN,Fars,Shiraz,1573941600,4\nIRN,Fars,Lar,1573941600,90\n"


def read_one_series(data: bytes) -> str | None:
    """A file of a series: missing is never below 0, and alarms follow one another."""
    points = recognise.read_series(data.splitlines(), series.Origin())
    assert all(point.value is None or point.value >= 0 for point in points)
    cuts, _judged = signals.look_through(signals.stored(points, "IR", 2**43, bytes(32)), "IR", 2**33)
    for cut in (faded(one, one.at_s, 2**33) for one in cuts):
        assert cut.end_s is not None
        assert cut.start_s <= cut.end_s
    for report in fusion.detect(points, regions=True):
        edges = [edge for alarm in report.alarms for edge in (alarm.start_s, alarm.end_s)]
        assert None not in edges[:-1]
        assert edges == sorted(edges, key=lambda edge: math.inf if edge is None else edge)
    return None


# ---- what a probe hears ----


def dns_replies() -> Iterable[bytes]:
    """Replies with an address and with an alias."""
    query = dns.encode_query(1, "www.example.org", dns.A)
    yield nameserver.reply(query, ("93.184.216.34", "10.0.0.1"))
    yield nameserver.reply(query, (), rcode=3)
    yield query[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + query[12:] + b"\xc0\x0c\0\5\0\1\0\0\0\1\0\2\xc0\x10"


def read_dns(data: bytes) -> None:
    """Names and addresses of a reply are within DNS's bounds."""
    reply = dns.decode_reply(data)
    for record in reply.records:
        assert len(record.value) <= 4 * 255
    assert dns.failure_of(reply) is None or not reply.addresses or reply.rcode


def tls_flights() -> Iterable[bytes]:
    """A ClientHello, a ServerHello and an alert."""
    hello = tls.client_hello("www.example.org", bytes(32), bytes(32), alpn=("h3",), quic=b"\1\0")
    yield b"\x16\3\1" + len(hello).to_bytes(2) + hello
    yield bytes.fromhex("160303002a020000260303") + bytes(32) + bytes.fromhex("00c02f00")
    yield bytes.fromhex("15030300020270")


def read_tls(data: bytes) -> str | None:
    """Whatever comes first is named."""
    kind = tls.read_flight(data).kind
    assert kind in ("", "server_hello", "client_hello", "alert", "handshake", "not_tls")
    return None if kind == "server_hello" else kind


def quic_answers() -> Iterable[bytes]:
    """Each kind of answer to an Initial."""
    packet = quic.client_initial("www.example.org", b"theirs00", b"ours0000", bytes(32), bytes(32))
    for payload in (b"\2\0\0\0\0\6\0\4\2\0\0\0", b"\x1c\2\0\0"):
        yield quic.server_initial(packet, b"server00", payload.ljust(20, b"\0")) or b""
    yield b"\x80\0\0\0\0\x08ours0000\x08theirs00\0\0\0\1"


def read_quic(data: bytes) -> str | None:
    """An answer is one of the kinds; so is what an Initial holds, behind its seal."""
    kinds = ("initial", "retry", "version_negotiation", "invalid")
    kind = quic.read_answer(data, b"theirs00", b"ours0000").kind
    assert kind in kinds
    packet = quic.client_initial(None, b"theirs00", b"ours0000", bytes(32), bytes(32))
    sealed = quic.server_initial(packet, b"server00", data[:1000].ljust(20, b"\0"))
    assert sealed is not None
    assert quic.read_answer(sealed, b"theirs00", b"ours0000").kind == "initial"
    return None if kind == "initial" else kind


def http_answers() -> Iterable[bytes]:
    """Answers with a length, in chunks and without either, and redirects."""
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a=b\r\n\r\nhi"
    chunks = b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
    yield b"HTTP/1.1 302 Found\r\nLocation: //other.example/x?y\r\n" + chunks
    yield b"HTTP/1.0 403 No\r\n\r\nblocked"


def read_http(data: bytes) -> str | None:
    """An answer ends, within its bounds; where it sends the client can be asked for, or is refused."""
    exchange = http.Exchange(64)
    url = http.parse_url("http://www.example.org/")
    exchange.send("GET", url, http.HEADERS)
    for at in range(0, len(data), 7):
        if not exchange.done:
            exchange.feed(data[at : at + 7])
    if not exchange.done:
        exchange.feed(b"")
    assert exchange.done
    assert len(exchange.body) <= 64
    with suppress(UsageError):
        target = http.redirect_of(url, exchange.status, exchange.header("Location"))
        if target is not None:
            http.Exchange().send("GET", target, http.HEADERS)
    return exchange.failure


def gate_requests() -> Iterable[bytes]:
    """A request of each protocol that the gate takes."""
    where = address.encode(address.Target("site.example", 443))
    yield b"\x05\x01\x00\x05\x01\x00" + where + b"early"
    yield b"\x05\x02\x00\x02\x01\x02me\x03key\x05\x03\x00" + where
    yield b"\x04\x01\x01\xbb\xc0\x00\x02\x07me\0"
    yield b"\x04\x01\x01\xbb\x00\x00\x00\x01\0site.example\0"
    yield b"CONNECT site.example:443 HTTP/1.1\r\nProxy-Authorization: Basic bWU6a2V5\r\n\r\n"
    yield b"POST http://site.example/a?b HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTE: x\r\n\r\n3;a\r\nabc\r\n0\r\n\r\n"
    yield b"GET /proxy.pac HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def read_gate_request(data: bytes) -> str | None:
    """A request is the same in one piece and in two, and names a target that can be written down."""
    found = []
    for pieces in ((data,), (data[: len(data) // 2], data[len(data) // 2 :])):
        try:
            found.append(read_from_gate(pieces))
        except HttpError:  # in the first piece it is a page that says so
            return "bad chunks"
    assert found[0] == found[1]
    outcome = found[0][1]
    if isinstance(outcome, reach_request.Request):
        address.encode(outcome.target)
        return None
    return None if outcome is None else outcome.why


def read_from_gate(pieces: Iterable[bytes]) -> tuple[bytes, reach_request.Request | reach_request.Ended | None]:
    """What the gate says to these pieces, and what comes of them."""
    first = next((piece[0] for piece in pieces if piece), 0)
    forwarding = reach_http_proxy.HttpProxy(address.Target("127.0.0.1", 1080))
    kinds: dict[int, reach_request.Reader] = {4: reach_socks.Socks4(), 5: reach_socks.Socks5()}
    reader = kinds.get(first, forwarding)
    said, outcome = b"", None
    for piece in pieces:
        if isinstance(outcome, reach_request.Request):
            more = forwarding.exchange.outward(piece) if forwarding.exchange else piece
            outcome = outcome._replace(early=outcome.early + more)
        elif outcome is None:
            say, outcome = reader.receive(piece)
            said += say
    return said, outcome


def proxy_answers() -> Iterable[bytes]:
    """What proxies say to a client of theirs, of SOCKS 5 and of HTTP."""
    yield b"\x05\x00\x05\x00\x00\x01\x7f\0\0\1\x04\x38banner"
    yield b"\x05\x02\x01\x00\x05\x05\x00\x03\x0csite.example\x01\xbb"
    yield b"\x05\x00\x05\x00\x00\x04" + bytes(18)
    yield b"\x05\xff"
    yield b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbanner"
    yield b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 407 No\r\nConnection: keep-alive\r\n\r\nbody"
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a\r\nabc\r\n0\r\nA: b\r\n\r\nmore"


def read_proxy_answer(data: bytes) -> str | None:
    """What a proxy lets through comes through as it came; an answer is the same in one piece and in two."""
    target = address.Target("site.example", 443)
    half = len(data) // 2
    told = {answered_by((data,)), answered_by((data[:half], data[half:]))}
    assert len(told) == 1
    asking = reach_http_proxy.HttpAsking(target) if data[:1] == b"H" else socks.Asking(target, reach_us())
    _, reached = asking.receive(data)
    assert reached is None or data.endswith(reached.early)
    return None


def answered_by(pieces: Iterable[bytes]) -> tuple[bytes, bool]:
    """What a program gets of an answer, and whether it may go on."""
    answer = Answer(b"GET", True)
    told = b""
    try:
        for piece in pieces:
            told += answer.passed(piece)
    except HttpError:
        return b"", False
    return told, answer.ended


def reach_us() -> reach_request.Credentials:
    """Somebody who may come in."""
    return reach_request.Credentials(b"me", b"key")


def relayed_datagrams() -> Iterable[bytes]:
    """Datagrams as a program sends them to the gate."""
    yield socks.wrap_datagram(address.Target("site.example", 53), b"question")
    yield socks.wrap_datagram(address.Target("2001:db8::7", 53), b"question")


def unwrap_relayed(data: bytes) -> str | None:
    """What is read can be written, and is then read again as the same."""
    found = socks.unwrap_datagram(data)
    if found is not None:
        assert socks.unwrap_datagram(socks.wrap_datagram(*found)) == found
    return None if found else "no datagram"


def read_public_answer(data: bytes) -> str | None:
    """What is taken for an answer is of the publisher and the country that were asked for."""
    refused: list[ProtocolError] = []
    asked = endpoints.endpoints("IR", 1_768_000_000)
    for one in asked:
        try:
            points = endpoints.read_answer(one, "IR", data.splitlines(), series.Origin())
        except ProtocolError as error:
            refused.append(error)
            continue
        assert {(point.source, point.entity.partition("/")[0]) for point in points} <= {
            (one.adapter, "IR"),
            (one.adapter, ""),
        }
    if len(refused) == len(asked):
        raise refused[0]
    return None


def control_requests() -> Iterable[bytes]:
    """A request of the protocol, and one that would reach too far."""
    asked = {"http_request": "https://www.example.org/", "tcp_connect": ["93.184.216.34:443", "[::1]:80"]}
    yield json.dumps(asked | {"http_request_headers": {"Accept": ["*/*"]}, "x_quic_enabled": False}).encode()
    yield b'{"http_request":"http://192.168.1.1/"}'


def read_control(data: bytes) -> None:
    """What is carried out leads to public addresses alone."""
    look = control.read_request(data)
    assert all(is_public(ip) for ip in look.addresses)


class AllowedRows:
    """A vault where the sender may ask, and was asked."""

    def query(self, sql: str, _args: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """As the queries of `asked` need it: nothing has this number yet, no wish is recent."""
        if "count(*)" in sql:
            return [(0,)]
        return [] if "number = ?)" in sql or sql.endswith("number = ?") else [(1,)]


def ask_letters() -> Iterable[bytes]:
    """A wish and what was told."""
    yield b"a" + ASK.encode(Ask(bytes(16), "https://www.example.org/"))
    yield b"t" + TOLD.encode(Told(bytes(16), "", b"packed"))


def receive_wish(data: bytes) -> str | None:
    """What is kept of a contact's wish is a URL of the public web."""
    kind = (ASK if data[:1] == b"a" else TOLD).name
    letter = room.Letter(bytes(16), kind, data[1:], NOW_MS, bytes(32), bytes(32), NOW_MS)
    changes = asked.receive(letter, AllowedRows())
    for change in changes:
        assert isinstance(change, room.Put)
        if kind == ASK.name:
            assert str(change.row["target"]).lower().startswith(("http://", "https://"))
    return None if changes else "passed over"


def reach_letters() -> Iterable[bytes]:
    """A letter of each kind of reach: its place in the room's list, then its body."""
    number, today = bytes(16), TODAY
    link = "ss://YWVzLTI1Ni1nY206c2VjcmV0@192.0.2.9:8388"
    bodies = (
        [number, link, today + 9, True, b""],
        [number, b""],
        [number, "freeze"],
        [number],
        [number, ["192.168.1.7"], 8388, bytes(32), 0, False, today + 9],
        [number, [["192.0.2.9", 8388]]],
    )
    for place, body in enumerate(bodies):
        yield bytes([place]) + msgspec.msgpack.encode(body)


class BareVault:
    """A vault in which there is nothing of reach yet."""

    def query(self, _sql: str, _args: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """No rows."""
        return []


def receive_of_reach(data: bytes) -> str | None:
    """What a contact's letter brings unasked is a bridge that can be read, or an offer within the local network."""
    kind = REACH.letters[data[0] % len(REACH.letters)] if data else REACH.letters[0]
    letter = room.Letter(bytes(16), kind.name, data[1:], NOW_MS, bytes(32), bytes(32), NOW_MS)
    changes = reach_view.receive(letter, BareVault())
    for change in changes:
        assert isinstance(change, room.Put)
        assert change.table in (reach_view.BRIDGE, reach_view.WANT, reach_view.BORROWED)
        if change.table == reach_view.BRIDGE:
            reach_links.read_bridge(str(change.row["link"]))
    return None if changes else "passed over"


def target_lists() -> Iterable[bytes]:
    """A list of the Citizen Lab's format, and one of Tor's targets."""
    yield b"url,category_code,notes\nhttps://www.example.org/,NEWS,\nhttp://example.net/,PORN,\n"
    yield b'{"a": {"address": "93.184.216.34:443", "protocol": "obfs4"}}'


def read_target_lists(data: bytes) -> None:
    """A list of URLs holds none of a risky category; else it is read as one of Tor's."""
    try:
        chosen = read_targets(data.decode("utf-8", "replace").splitlines())
    except ProtocolError:
        services.read_tor_targets(data)
    else:
        assert not {one.category for one in chosen.targets} & RISKY.keys()


# ---- measurements and fingerprints of others ----


def web_measurements() -> Iterable[bytes]:
    """Measurements of web_connectivity in the form of today and in that of old probes, and of some other tests."""
    tags = {"tags": ["depth=0", "fetch_body=true"], "transaction_id": 1, "failure": None}
    answers = [{"answer_type": "A", "ipv4": "192.0.2.7", "asn": 64500}, {"answer_type": "AAAA", "ipv6": "2001:db8::7"}]
    page = {"code": 302, "body": {"format": "base64", "data": "aGk"}, "headers": {"Location": "/b"}}
    events: dict[str, Any] = {
        "queries": [{"hostname": "a.example", "engine": "getaddrinfo", "answers": answers, **tags}],
        "tcp_connect": [{"ip": "192.0.2.7", "port": 443, "status": {"failure": None, "success": True}, **tags}],
        "tls_handshakes": [{"address": "192.0.2.7:443", "server_name": "a.example", **tags}],
        "requests": [{"request": {"url": "https://a.example/", "tor": {"is_tor": False}}, "response": page, **tags}],
        "x_throttling": {"target": [[0.0, 1], [2.0, 9]], "control": [[0.0, 1], [1.0, 999]]},
    }
    events["control"] = {
        "dns": {"failure": None, "addrs": ["192.0.2.9"]},
        "tcp_connect": {"192.0.2.7:443": {"failure": "connection_refused"}},
        "tls_handshake": {"192.0.2.7:443": {"failure": None, "server_name": "a.example"}},
        "http_request": {
            "failure": None,
            "status_code": 200,
            "body_length": 2,
            "title": "A page",
            "headers": {"A": ""},
        },
        "ip_info": {"192.0.2.9": {"asn": 64500}},
    }
    old = {name: [{**one, "tags": None} for one in found] for name, found in events.items() if isinstance(found, list)}
    target = {"target_protocol": "or_port", "tcp_connect": events["tcp_connect"], "failure": "eof_error"}
    for test_name, keys in (
        ("web_connectivity", events),
        ("web_connectivity", {**events, **old}),
        ("signal", events),
        ("http_requests", {"requests": [*events["requests"], {"request": {"tor": {"is_tor": True}}}]}),
        ("dns_consistency", {"queries": events["queries"] * 2, "control_resolver": "192.0.2.1:53"}),
        ("tor", {"targets": {"a": target}}),
    ):
        yield json.dumps({"test_name": test_name, "input": "https://a.example/", "test_keys": keys}).encode()


def scrub_one(data: bytes) -> None:
    """What is published of a measurement names no address of its maker, and can be unpacked again."""
    clean = scrub(data.replace(b"a.example", b"a.example 203.0.113.7"))
    found = msgspec.json.decode(clean)
    assert found["probe_ip"] == "127.0.0.1"
    assert scrub(clean) == clean
    assert unpack_raw(pack_raw(clean)) == clean


def unpack_record(data: bytes) -> None:
    """A record of an observation is no bomb."""
    unpack_raw(data)


def read_line(data: bytes) -> str | None:
    """Tables of the kernel and addresses of controls: an address, or a line that says why not."""
    text = data.decode("utf-8", "replace")
    gateway = default_gateway(text)
    if gateway is not None:
        IPv4Address(gateway)
    is_neighbour(text, "192.0.2.1")
    host, port = read_target(text)
    assert 0 < port < 65536
    assert host
    return None


def judge(data: bytes) -> str | None:
    """Any file is measurements with a verdict, or damage that is told in one line."""
    reason = None
    for found in records([data[:100], data[100:]], max_bytes=1 << 14):
        if isinstance(found, Damage):
            reason = found.problem
            continue
        try:
            verdict = classify(from_object(found[1]))
        except MeasurementError as error:
            reason = str(error)
        else:
            assert verdict.blocking in (None, False, "dns", "tcp_ip", "http-failure", "http-diff")
            verdict.input.encode()
    assert reason is None or "\n" not in reason
    return reason


def fingerprint_lists() -> Iterable[bytes]:
    """A list with each kind of pattern, and something to look for them in."""
    head = "name,scope,location_found,pattern_type,pattern,confidence_no_fp,expected_countries\n"
    yield (
        f"{head}a,nat,body,contains,is forbidden,5,\nb,isp,body,regexp,it.s .*for\\.bidden,5,IR\n"
        'c,prod,header.server,prefix,Net,9,"IR, BY"\nd,fp,dns,full,192.0.2.7,5,\ne,nat,body,regexp,a{2}|b,x,\n'
        "it is forbidden, it's for.bidden"
    ).encode()


def look_for(data: bytes) -> str | None:
    """Any list is taken or refused row by row, and looks through anything; a refusal is one line."""
    text = data.decode(errors="replace")
    known = Fingerprints(read_list(text.splitlines(keepends=True)))
    found = known.of_response({"server": text[-99:], "location": text[:99]}, data) + known.of_answers([text[-9:]])
    assert all(one.kind != "contains" or one.location != "body" or one.pattern.encode() in data for one in found)
    assert all("\n" not in one.reason for one in known.refused)
    return known.refused[0].reason if known.refused else None


TARGETS = (
    Target(
        "entry header",
        lambda: [one.header_bytes for one in entries()],
        run_with(decode_one_header),
        (EntryError,),
        8,
    ),
    Target("packed entry", lambda: map(pack, entries()), run_with(unpack_one), (EntryError,), 5),
    Target(
        "packed entries",
        lambda: [pack(entries()[0]) + pack(entries()[3]), pack(entries()[1])],
        run_with(unpack_buffer),
        (EntryError,),
        5,
    ),
    Target(
        "admission",
        lambda: [packed(one.header_bytes, one.payload or b"") for one in entries()],
        run_with(admit_one),
        (),
        8,
    ),
    Target(
        "rows of an entry",
        lambda: (
            [packed(one.header_bytes, one.payload or b"") for one in entries()]
            + [packed(entries()[0].header_bytes, TEXT.encode(Text("hello")))]
        ),
        run_with(fold_one),
        (),
        4,
    ),
    Target("what media tell", media_files, run_with(clean_media), (MediaError,), 8),
    Target("form with a file", file_forms, run_with(read_form), (UsageError,), 3),
    Target("bodies of kinds", bodies, run_with(decode_kind), (KindError,), 8),
    Target(
        "certificate",
        lambda: [somebody("Ada").device.certificate],
        run_with(lambda data: read_certificate(data) and None),
        (IdentityError,),
        3,
    ),
    Target(
        "act",
        lambda: [membership.MEMBER_ACT.encode(body) for body in act_bodies()],
        run_with(resolve_one),
        (KindError,),
        2,
    ),
    Target("sealed entry behind its seal", sealed_inners, run_with(open_sealed_inner), (epoch.EpochError,), 2),
    Target("sealed entry's payload", raw_sealed, run_with(open_raw_sealed), (epoch.EpochError,), 2),
    Target("box of a genesis", closed_bodies, run_with(open_boxed), (KindError, IdentityError), 2),
    Target("circular", circular_letters, run_with(receive_circular), (), 1),
    Target("revocation behind its signature", revocation_bodies, run_with(read_signed_revocation), (IdentityError,), 1),
    Target("tombstone", tombstones, run_with(read_tombstone), (), 1),
    Target("letter about devices", device_letters, run_with(read_devices), (), 1),
    Target("certificate behind its signatures", device_bodies, run_with(read_signed_certificate), (IdentityError,), 2),
    Target(
        "links",
        encoded([contact_link(), make_channel_link(secret("space"), "news"), "<outlast://contact/\n abc=>"]),
        run_with(read_any_link),
        (UsageError, ProtocolError),
        2,
    ),
    Target("bridges", bridge_links, run_with(read_any_bridge), (UsageError,), 10),
    Target(
        "first request to a web bridge",
        lambda: [web.write_request("site.example", WEB_PATH, bytes(16), b"pad")],
        run_with(hear_visitor),
        (),
        3,
    ),
    Target("answer of a web bridge's site", lambda: WEB_ANSWERS, run_with(hear_site), (ProtocolError,), 4),
    Target("greetings of the mux", mux_greetings, run_with(hear_greeting), (MuxError,), 2),
    Target("frames of the mux", mux_frames, run_with(hear_frames), (MuxError,), 5),
    Target("first bytes of a TLS client", client_hellos, run_with(hear_hello), (), 2),
    Target("stream of Shadowsocks", shadowsocks_streams, run_with(accept_shadowsocks), (ShadowsocksError,), 1),
    Target(
        "Shadowsocks behind its seals",
        shadowsocks_headers,
        run_with(accept_shadowsocks_headers),
        (ShadowsocksError,),
        6,
    ),
    Target("doh", resolver_answers, run_with(read_resolver), (ProtocolError,), 4),
    Target("first flight", client_hellos, run_with(cut_flight), (), 1),
    Target("bridge link", bridge_fields, run_with(read_bridge_fields), (UsageError,), 3),
    Target("words of a transport", lambda: TRANSPORT_LINES, run_with(hear_child), (ProtocolError,), 8),
    Target("environment of a transport", lambda: TRANSPORT_ENVIRONMENTS, run_with(read_demanded), (UsageError,), 5),
    Target(
        "arguments of a transport",
        lambda: [b"cert=abc=;iat-mode=0", rb"a\=\;=\\", b"k=" + b"v" * 400],
        run_with(read_bridge_args),
        (ProtocolError,),
        3,
    ),
    Target(
        "introduction by a transport",
        lambda: [b"\1PROOF\0\1\0\x091.2.3.4:5\0\2\0\5obfs4\0\0\0\0", b"\1PROOF\0\7\0\1x\0\2\0\2.."],
        run_with(receive_introduction),
        (ProtocolError,),
        3,
    ),
    Target("log of tor", lambda: TOR_LOG, run_with(follow_tor), (), 2),
    Target(
        "answers of the Extended ORPort",
        lambda: [b"\1\0PROOF\1\x10\0\0\0", b"\1\2\0PROOF\1\x10\2\0\1x\x10\1\0\0", COOKIE_HEADER + bytes(32)],
        run_with(introduce),
        (ProtocolError,),
        3,
    ),
    Target("contact link", contact_fields, run_with(read_contact_fields), (UsageError, ProtocolError), 3),
    Target(
        "channel link",
        lambda: [packed(1, secret("space"), "news"), packed(2, 3)],
        run_with(read_channel_fields),
        (UsageError, ProtocolError),
        3,
    ),
    Target("IDs", ids, run_with(parse_any_id), (UsageError,), 1),
    Target(
        "24 words",
        encoded([WORDS, WORDS[::-1], "abandon " * 24, *SHARES, " ".join(SHARES[1:])]),
        run_with(read_words),
        (UsageError,),
        3,
    ),
    Target(
        "cookies and addresses",
        encoded(["192.0.2.1:8485", "[2001:db8::1]:1", "a=b; session=x", ":1", "a:99999", "a:" + "9" * 5000]),
        run_with(read_header_texts),
        (UsageError,),
        1,
    ),
    Target("manifest of a release", manifests, run_with(read_release_lists), (InstallError,), 3),
    Target("signatures of a release", release_signatures, run_with(read_release_signatures), (ProtocolError,), 1),
    Target("letter", letters, run_with(decode_letter), (MailError,), 4),
    Target(
        "letter's fields",
        lambda: [msgspec.msgpack.encode(sealed_letter()), msgspec.msgpack.encode(replace_letter(prekey=None))],
        run_with(decode_letter_fields),
        (MailError,),
        6,
    ),
    Target("letter's place", places, run_with(read_letter_place), (MailError,), 2),
    Target("body that lies apart", bodies_apart, run_with(open_raw_body), (MailError,), 1),
    Target("envelope's payload", raw_payloads, run_with(open_raw_letter), (MailError,), 1),
    Target("envelope behind its seal", letters, run_with(open_sealed_letter), (MailError,), 3),
    Target(
        "introduction behind its seals",
        lambda: [packed(somebody("Bob").device.certificate, 0, letter) for letter in letters()],
        run_with(open_made_introduction),
        (MailError,),
        4,
    ),
    Target("bundle file", bundle_starts, run_with(read_raw_bundle), (), 3),
    Target("bundle behind its seals", chunks, run_with(read_chunks), (), 3),
    Target("key slot and backup file", slots, run_with(open_raw_slot), (StorageError, LockedError), 2),
    Target(
        "key slot behind its check",
        lambda: [slot[:-8] for slot in slots()],
        run_with(open_key_slot),
        (StorageError, LockedError),
        3,
    ),
    Target(
        "backup behind its seal",
        lambda: [(len(body)).to_bytes(4, "big") + body + bytes(50) for body in backup_bodies()],
        run_with(open_backup_body),
        (StorageError,),
        1,
    ),
    Target("backup's fields", backup_bodies, run_with(open_backup_fields), (StorageError,), 2),
    Target(
        "preamble",
        lambda: [encode_preamble(pattern, (1, 2, 255)) for pattern in Pattern],
        run_with(read_preamble),
        (HandshakeError,),
        4,
    ),
    Target("announcement", announcements, run_with(hear), (), 1),
    Target("frames", frames, run_with(read_frames), (), 2),
    Target("handshake", handshakes, run_with(shake), (HandshakeError,), 4),
    Target("messages of a TCP link", channel_messages, channel_reader, (ProtocolError,), 2),
    Target("reconciliation, responder", lambda: reconciliations()[0], run_with(respond), (SetrecError,), 6),
    Target("reconciliation, initiator", lambda: reconciliations()[1], run_with(initiate), (SetrecError,), 6),
    Target("session", sessions, run_with(hold_session), (), 10),
    Target("local API", requests, api, (), 6),
    Target(
        "form",
        forms,
        run_with(check_form),
        (OutlastError,),
        2,
    ),
    Target("measurements of OONI", web_measurements, run_with(judge), (), 4),
    Target("measurement to scrub", web_measurements, run_with(scrub_one), (ProtocolError,), 2),
    Target(
        "record of an observation",
        lambda: [pack_raw(data) for data in web_measurements()],
        run_with(unpack_record),
        (ProtocolError,),
        1,
    ),
    Target(
        "tables and addresses of the own line",
        lambda: [
            b"Iface Destination Gateway Flags\neth0 00000000 0102A8C0 0003\n",
            b"IP address HW type Flags\n192.0.2.1 0x1 0x2 aa:bb *\n",
            b"https://www.example.org:8443/",
            b"[2001:db8::7]:53",
        ],
        run_with(read_line),
        (UsageError,),
        1,
    ),
    Target("list of fingerprints", fingerprint_lists, run_with(look_for), (), 4),
    Target("file of a route collector", route_files, run_with(read_routes), (), 8),
    Target("reply of DNS", dns_replies, run_with(read_dns), (ProtocolError,), 1),
    Target("first bytes of TLS", tls_flights, run_with(read_tls), (), 3),
    Target("answer of QUIC", quic_answers, run_with(read_quic), (), 2),
    Target("answer of HTTP", http_answers, run_with(read_http), (), 2),
    Target("request to the gate", gate_requests, run_with(read_gate_request), (), 6),
    Target("answer of somebody's proxy", proxy_answers, run_with(read_proxy_answer), (ProtocolError,), 3),
    Target("datagram to the gate", relayed_datagrams, run_with(unwrap_relayed), (), 1),
    Target("answer of a public server", series_files, run_with(read_public_answer), (ProtocolError,), 4),
    Target("request to a control", control_requests, run_with(read_control), (ProtocolError,), 1),
    Target("wish for a probe, and its answer", ask_letters, run_with(receive_wish), (), 1),
    Target("letters of reach", reach_letters, run_with(receive_of_reach), (), 1),
    Target("lists of targets", target_lists, run_with(read_target_lists), (ProtocolError,), 2),
    Target("file of a series", series_files, run_with(read_one_series), (ProtocolError, UsageError), 4),
)
"""All decoders."""
