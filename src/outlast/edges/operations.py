"""The node's own operations: who one is, contacts, peers, bundles, backup, and how the node is."""

from __future__ import annotations

import os
import platform
import resource
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from outlast import __version__, address
from outlast.edges.https.trusting import OPERATIONS as TRUST
from outlast.edges.metrics import METRICS
from outlast.edges.residents import OPERATIONS as RESIDENTS
from outlast.edges.space import OPERATIONS as SPACE
from outlast.edges.stick.operations import OPERATIONS as STICK
from outlast.errors import NotFoundError, UsageError
from outlast.kernel import (
    BundleReport,
    Contact,
    ContactDevice,
    Discovery,
    Level,
    Node,
    PeerState,
    Person,
    device_key,
    id_text,
    node_text,
    parse_node,
    parse_space,
)
from outlast.ui.file import existing_file, new_file
from outlast.ui.operation import KEY_MIN_CHARS, Call, Nothing, Operation

LOW_SPACE_BYTES: Final = 256 * 1024 * 1024

LevelName = Literal["off", "ok", "warn", "cut"]
_LEVELS: Final[Mapping[Level, LevelName]] = {
    Level.OFF: "off",
    Level.OK: "ok",
    Level.WARN: "warn",
    Level.CUT: "cut",
}


class Identity(msgspec.Struct, frozen=True):
    """Who one is: the ID, six words to compare aloud, the name, the link to give away, and the node's ID."""

    id: str
    words: str
    name: str
    link: str
    node: str


class RoomState(msgspec.Struct, frozen=True):
    """How a room is doing, as codes."""

    room: str
    level: LevelName
    since_ms: int | None
    reason: str
    evidence: dict[str, str | int | float | None]


class Peer(msgspec.Struct, frozen=True):
    """A node that this one connects to, or one that called: then ``address`` is empty."""

    node: str
    address: str
    connected: bool
    last_seen_ms: int | None
    error: str | None


class State(msgspec.Struct, frozen=True):
    """How the node is doing; counts are 0 and lists empty while it is locked.

    ``device``: ``renewed`` when it went on as a new one because a copy of it is in use, ``copied`` when that may be so,
    ``ended`` when another one of the person ended it.
    """

    version: str
    locked: bool
    unattended: bool
    name: str | None
    device: Literal["ok", "copied", "renewed", "ended"]
    entries: int
    bytes: int
    space_left: int
    clock_warning: str | None
    pruning_stopped: str | None
    rooms: list[RoomState]
    peers: list[Peer]


class Passphrase(msgspec.Struct, frozen=True):
    """The passphrase of the home."""

    passphrase: str


class Unlocked(msgspec.Struct, frozen=True):
    """Whose vault is open now."""

    name: str


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at; it names nobody and no place."""

    name: str
    level: Literal["ok", "warn", "bad"]
    found: str


class Diagnosis(msgspec.Struct, frozen=True):
    """What was looked at, in a form that can be shown to others."""

    checks: list[Check]


class Rebuilt(msgspec.Struct, frozen=True):
    """From how many entries the views were made anew."""

    entries: int


class PeerAddress(msgspec.Struct, frozen=True):
    """Where a node listens (HOST:PORT), and its node ID."""

    address: str
    node: str


class PeerName(msgspec.Struct, frozen=True):
    """A node by its node ID."""

    node: str


class Looking(msgspec.Struct, frozen=True):
    """Whom the running node looks for in local networks; ``strangers`` are looked for beside the neighbours."""

    mode: Literal["off", "neighbours", "strangers"]


class Known(msgspec.Struct, frozen=True):
    """Somebody one knows; ``words`` are to be compared aloud before ``verified`` is set."""

    id: str
    name: str
    words: str
    verified: bool
    verified_ms: int | None
    blocked: bool
    added_ms: int
    warnings: list[str]
    devices: list[Device]


class Device(msgspec.Struct, frozen=True):
    """A device: the beginning of its key, the day (since 1970) it was made, and how it stands.

    One's own: ``present``, ``earlier`` or ``revoked``. A contact's: ``accepted``, ``new`` (another device of theirs
    vouches for it), ``unknown`` (nothing is sealed to it before it is accepted) or ``revoked``.
    """

    key: str
    made_day: int
    state: Literal["present", "earlier", "revoked", "accepted", "new", "unknown"]


class Which(msgspec.Struct, frozen=True):
    """An earlier device by the beginning of its key, or all that are not revoked yet."""

    key: str | None = None
    all: bool = False


class Link(msgspec.Struct, frozen=True):
    """Somebody's contact link, and what to call them instead of the name in it."""

    link: str
    name: str | None = None


class Who(msgspec.Struct, frozen=True):
    """A contact by ID, name, or the beginning of the ID."""

    who: str


class Blocking(msgspec.Struct, frozen=True):
    """A contact, and whether their mail stays closed from now on."""

    who: str
    blocked: bool = True


class Naming(msgspec.Struct, frozen=True):
    """A contact, and what to call them from now on."""

    who: str
    name: str


class Target(msgspec.Struct, frozen=True):
    """A file or folder to write to, and either the contact ``to`` whom, or the channel ``space`` of which, it is.

    With ``max_bytes`` the file is no larger, and what matters most goes first.
    """

    file: str
    to: str | None = None
    space: str | None = None
    max_bytes: int | None = None


class Source(msgspec.Struct, frozen=True):
    """A file to read."""

    file: str


class Carried(msgspec.Struct, frozen=True):
    """What a bundle holds: entries, bytes of the file, how many entries were new to the reader; what was wrong.

    Of one that was written: how many entries there was no room for.
    """

    file: str
    entries: int
    bytes: int
    new: int
    damaged: int
    problems: list[str]
    left_out: int = 0


class Saving(msgspec.Struct, frozen=True):
    """A file to write, and the passphrase that opens it later."""

    file: str
    passphrase: str


class Saved(msgspec.Struct, frozen=True):
    """A file that was written."""

    file: str
    bytes: int


class Cut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Into how many shares, and how many of them are enough."""

    threshold: int
    count: int


class Shares(msgspec.Struct, frozen=True):
    """Shares of the secret that the 24 words stand for (SLIP-39)."""

    threshold: int
    shares: list[str]  # 33 words each


async def identity(call: Call[Nothing]) -> Identity:
    """Who the caller is."""
    person = call.person
    words = " ".join(person.words())
    return Identity(person.id, words, person.name, await person.link(), node_text(call.node.transport_id))


async def status(call: Call[Nothing]) -> State:
    """How the node is doing, locked or not."""
    node, person = call.node, call.who()
    entries, size = _usage(node)
    return State(
        version=__version__,
        locked=not node.people,
        unattended=node.home.unattended,
        name=person.name if person else None,
        device=person.device_state if person else "ok",
        entries=entries,
        bytes=size,
        space_left=node.space_left(),
        clock_warning=None if (clock := node.clock_warning()) is None else str(clock),
        pruning_stopped=None if (stopped := node.pruning_stopped()) is None else str(stopped),
        rooms=[
            RoomState(name, _LEVELS[state.level], state.since_ms, state.reason_code, _plain(state.evidence))
            for name, state in node.status(person)
        ],
        peers=_peers(node),
    )


async def unlock(call: Call[Passphrase]) -> Unlocked:
    """Open store and vault."""
    return Unlocked((await call.node.unlock(call.params.passphrase)).name)


async def lock(call: Call[Nothing]) -> Nothing:
    """Close store and vaults."""
    await call.node.lock()
    return Nothing()


async def rebuild(call: Call[Nothing]) -> Rebuilt:
    """Make the rooms' views anew."""
    _ = call.person
    await call.node.rebuild()
    return Rebuilt(_usage(call.node)[0])


async def wipe(call: Call[Nothing]) -> Nothing:
    """Destroy the home; the process that served it ends."""
    await call.node.wipe()
    return Nothing()


async def peer_add(call: Call[PeerAddress]) -> Peer:
    """Connect to a node from now on."""
    host, port = address.read(call.params.address)
    node_id = parse_node(call.params.node)
    await call.node.peer_add(node_id, host, port)
    name = node_text(node_id)
    return next(peer for peer in _peers(call.node) if peer.node == name)


async def peer_list(call: Call[Nothing]) -> list[Peer]:
    """The nodes that this one connects to."""
    _ = call.node.open_store
    return _peers(call.node)


async def peer_remove(call: Call[PeerName]) -> Nothing:
    """Forget a node."""
    await call.node.peer_remove(parse_node(call.params.node))
    return Nothing()


async def peer_looking(call: Call[Nothing]) -> Looking:
    """Whom the node looks for."""
    return Looking(call.node.discovery.value)


async def peer_look(call: Call[Looking]) -> Looking:
    """Look for others in local networks from now on."""
    await call.node.set_discovery(Discovery(call.params.mode))
    return call.params


async def contact_add(call: Call[Link]) -> Known:
    """Add somebody, or renew what their link says."""
    return _known(call.person, await call.person.add_contact(call.params.link, call.params.name))


async def contact_list(call: Call[Nothing]) -> list[Known]:
    """Everybody one knows."""
    return [_known(call.person, contact) for contact in call.person.contacts()]


async def contact_get(call: Call[Who]) -> Known:
    """One contact."""
    return _known(call.person, call.person.find(call.params.who))


async def contact_verify(call: Call[Who]) -> Known:
    """Remember that the words were compared."""
    found = call.person.find(call.params.who)
    await call.person.verify(found.identity)
    return _known(call.person, call.person.contact(found.identity))


async def contact_block(call: Call[Blocking]) -> Known:
    """Close or open somebody's way in."""
    found = call.person.find(call.params.who)
    await call.person.block(found.identity, call.params.blocked)
    return _known(call.person, call.person.contact(found.identity))


async def contact_accept(call: Call[Who]) -> Known:
    """Trust the contact's new devices."""
    found = call.person.find(call.params.who)
    await call.person.accept_device(found.identity)
    return _known(call.person, call.person.contact(found.identity))


async def device_list(call: Call[Nothing]) -> list[Device]:
    """One's own devices."""
    return own_devices(call.person)


async def device_revoke(call: Call[Which]) -> list[Device]:
    """End devices that are no longer one's own."""
    person, which = call.person, call.params
    if (which.key is None) != which.all:
        raise UsageError("name one device by its key, or all")
    if which.key is None:
        for old in person.old_devices():
            await person.revoke_device(old.device)
        return own_devices(person)
    key = which.key.strip().lower()
    mine = [one.device.device for one in person.devices()]
    found = [device for device in mine if len(key) >= KEY_MIN_CHARS and device.hex().startswith(key)]
    if len(found) != 1:
        raise NotFoundError("no such device of yours: see `outlast device list`")
    await person.revoke_device(found[0])
    return own_devices(person)


async def device_renew(call: Call[Nothing]) -> list[Device]:
    """Go on as a new device, and end this one."""
    person = call.person
    await person.renew()
    await person.note_renewal()
    return own_devices(person)


async def contact_rename(call: Call[Naming]) -> Known:
    """Call somebody otherwise."""
    found = call.person.find(call.params.who)
    await call.person.rename(found.identity, call.params.name)
    return _known(call.person, call.person.contact(found.identity))


async def bundle_write(call: Call[Target]) -> Carried:
    """Write a bundle; its letters count as copied only when the file is durable."""
    params, person = call.params, call.person
    if (params.to is None) == (params.space is None):
        raise UsageError("say for whom: either a contact, or a channel")
    to = None if params.to is None else person.find(params.to).identity
    space = None if params.space is None else parse_space(params.space)
    file = Path(params.file)
    if file.is_dir():
        # Nothing in the name tells what it is or for whom.
        file = file / f"{secrets.token_hex(4)}.bin"
    with new_file(file, 0o644) as out:
        report = await person.write_bundle(out, to=to, space=space, max_bytes=params.max_bytes, progress=call.progress)
    await person.bundle_left(report)
    return _carried(file, report)


async def bundle_read(call: Call[Source]) -> Carried:
    """Take in what is whole of a bundle."""
    file = Path(call.params.file)
    with existing_file(file) as source:
        size = os.fstat(source.fileno()).st_size
        report = await call.person.read_bundle(source, progress=lambda done, _: call.progress(done, size))
    return _carried(file, report)


def _carried(file: Path, report: BundleReport) -> Carried:
    problems = [str(one) for one in report.problems]
    return Carried(str(file), report.entries, report.size_bytes, report.new, report.damaged, problems, report.left_out)


async def backup(call: Call[Saving]) -> Saved:
    """Write a backup file."""
    file = Path(call.params.file)
    data = await call.person.backup(call.params.passphrase)
    with new_file(file, 0o600) as out:
        out.write(data)
    return Saved(str(file), len(data))


async def backup_shares(call: Call[Cut]) -> Shares:
    """Cut the secret into shares."""
    threshold = call.params.threshold
    return Shares(threshold, [" ".join(one) for one in call.person.secret_shares(threshold, call.params.count)])


async def doctor(call: Call[Nothing]) -> Diagnosis:
    """Look at what goes wrong most often."""
    node = call.node
    checks = list(_examine(node))
    if node.locked:
        return Diagnosis([*checks, Check("store", "ok", "locked, not looked at")])
    entries, size = _usage(node)
    checks.append(_soundness("store", await node.is_sound(), f"{entries} entries, {size} bytes"))
    for person in list(node.people.values()):
        # On the thread that writes: pages are read meanwhile.
        sound = await node.write(person.vault.is_sound)
        checks.append(_soundness("vault", sound, "open"))
    return Diagnosis([*checks, *_surroundings(node, call.who())])


OPERATIONS: Final[list[Operation[Any, Any]]] = [
    *RESIDENTS,
    *TRUST,
    Operation("id", Nothing, Identity, identity, "Who you are here"),
    Operation("status", Nothing, State, status, "How the node and its rooms are doing", while_locked=True),
    Operation("unlock", Passphrase, Unlocked, unlock, "Open the vault", unsafe=True, while_locked=True),
    Operation("lock", Nothing, Nothing, lock, "Close the vaults and the store", unsafe=True, while_locked=True),
    Operation("doctor", Nothing, Diagnosis, doctor, "Look for what is wrong, naming nobody", while_locked=True),
    Operation("rebuild", Nothing, Rebuilt, rebuild, "Make all views anew from the entries", unsafe=True),
    Operation("wipe", Nothing, Nothing, wipe, "Destroy the keys and the home", unsafe=True, while_locked=True),
    Operation("peer.add", PeerAddress, Peer, peer_add, "Connect to a node from now on", unsafe=True),
    Operation("peer.list", Nothing, list[Peer], peer_list, "The nodes that this one connects to"),
    Operation("peer.remove", PeerName, Nothing, peer_remove, "Stop connecting to a node", unsafe=True),
    Operation("peer.looking", Nothing, Looking, peer_looking, "Whom this node looks for in local networks"),
    Operation("peer.look", Looking, Looking, peer_look, "Look for nodes in local networks, or stop it", unsafe=True),
    Operation("contact.add", Link, Known, contact_add, "Add somebody by their link", unsafe=True),
    Operation("contact.list", Nothing, list[Known], contact_list, "Everybody you know"),
    Operation("contact.get", Who, Known, contact_get, "One contact"),
    Operation("contact.verify", Who, Known, contact_verify, "Remember that the words were compared", unsafe=True),
    Operation("contact.block", Blocking, Known, contact_block, "Open no more mail of somebody, or again", unsafe=True),
    Operation("contact.accept", Who, Known, contact_accept, "Trust a contact's new devices", unsafe=True),
    Operation("contact.rename", Naming, Known, contact_rename, "Call a contact by another name", unsafe=True),
    Operation("device.list", Nothing, list[Device], device_list, "Your devices"),
    Operation("device.revoke", Which, list[Device], device_revoke, "End devices that are no longer yours", unsafe=True),
    Operation("device.renew", Nothing, list[Device], device_renew, "Go on as a new device", unsafe=True),
    Operation("bundle.write", Target, Carried, bundle_write, "Write a file that is carried by hand", unsafe=True),
    Operation("bundle.read", Source, Carried, bundle_read, "Take in what such a file brings", unsafe=True),
    Operation("backup", Saving, Saved, backup, "Write a backup file under a passphrase", unsafe=True),
    Operation("backup.shares", Cut, Shares, backup_shares, "Shares of the 24 words, on paper for friends", unsafe=True),
    METRICS,
    *SPACE,
    *STICK,
]


def own_devices(person: Person) -> list[Device]:
    """One's own devices as they are told of, the present one first."""
    return [
        Device(
            device_key(one.device),
            one.device.created_day,
            "revoked" if one.revoked else "present" if one.is_present else "earlier",
        )
        for one in person.devices()
    ]


def _their_device(one: ContactDevice) -> Device:
    states: Mapping[str, Literal["new", "unknown", "revoked"]] = {
        "new_device": "new",
        "unknown_device": "unknown",
        "revoked": "revoked",
    }
    return Device(device_key(one.device), one.device.created_day, states.get(one.warning, "accepted"))


def _known(person: Person, contact: Contact) -> Known:
    return Known(
        id=id_text(contact.identity),
        name=contact.name,
        words=" ".join(contact.words),
        verified=contact.verified_ms is not None,
        verified_ms=contact.verified_ms,
        blocked=contact.blocked,
        added_ms=contact.added_ms,
        warnings=list(contact.warnings),
        devices=[_their_device(one) for one in person.contact_devices(contact.identity)],
    )


def _peer(state: PeerState) -> Peer:
    at = address.show((state.host, state.port)) if state.added else ""
    return Peer(
        node_text(state.node),
        at,
        state.connected,
        state.last_seen_ms,
        None if state.error is None else str(state.error),
    )


def _peers(node: Node) -> list[Peer]:
    return [] if node.locked else [_peer(state) for state in node.peers()]


def _usage(node: Node) -> tuple[int, int]:
    if node.locked:
        return 0, 0
    usage = node.open_store.usage()
    return usage.entries, usage.bytes


def _plain(evidence: Mapping[str, Any]) -> dict[str, str | int | float | None]:
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in evidence.items()}


def _examine(node: Node) -> Iterator[Check]:
    yield Check("program", "ok", f"Outlast {__version__}, Python {platform.python_version()}, {platform.system()}")
    loose = [one for one in _files(node.home.path) if one.lstat().st_mode & 0o077]
    yield Check(
        "files", "bad" if loose else "ok", f"{len(loose)} readable by others" if loose else "readable by you alone"
    )
    unattended = node.home.unattended
    kept = "by key files: not protected against seizure" if unattended else "under a passphrase"
    yield Check("keys", "warn" if unattended else "ok", kept)
    free = node.space_left()
    yield Check("disk", "ok" if free > LOW_SPACE_BYTES else "bad", f"{free >> 20} MiB free")
    clock = node.clock_warning()
    yield Check("clock", "warn" if clock else "ok", str(clock or "in keeping with what was seen"))
    stopped = node.pruning_stopped()
    yield Check("pruning", "warn" if stopped else "ok", str(stopped or "goes on"))
    dumps = resource.getrlimit(resource.RLIMIT_CORE)[0]
    yield Check("core dumps", "warn" if dumps else "ok", "possible: keys could reach a file" if dumps else "off")
    swap = _swap()
    yield Check("swap", "warn" if swap else "ok", "in use: keys could reach the disk" if swap else "none")


def _surroundings(node: Node, person: Person | None) -> Iterator[Check]:
    peers = _peers(node)
    connected = sum(peer.connected for peer in peers)
    yield Check("peers", "warn" if peers and not connected else "ok", f"{connected} of {len(peers)} connected")
    for name, state in node.status(person):
        level: Literal["ok", "warn", "bad"] = "bad" if state.level == Level.CUT else "ok"
        yield Check(f"room {name}", "warn" if state.level == Level.WARN else level, state.reason_code)


def _soundness(name: str, sound: bool, content: str) -> Check:
    return Check(name, "ok", content) if sound else Check(name, "bad", "damaged: restore from the backup file")


def _files(home: Path) -> Iterator[Path]:
    yield home
    for folder, folders, files in os.walk(home):
        yield from (Path(folder, name) for name in (*folders, *files))


def _swap() -> bool:
    with suppress(OSError):
        return len(Path("/proc/swaps").read_text().splitlines()) > 1
    return False
