"""Sessions of the mux: whatever happens to outers, a stream's bytes are equal on both sides, or the stream is over."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outlast.address import Target, encode
from outlast.rooms.reach.proto.mux import (
    DATA_HEADER_BYTES,
    NUMBER,
    PIECE_MAX_BYTES,
    MuxError,
    Type,
    count_frame,
    data_frame,
    frame,
)
from outlast.rooms.reach.proto.session import (
    FIRST_WINDOW_BYTES,
    FROZEN_MIN_S,
    WINDOW_BYTES,
    Accepted,
    Arrived,
    Datagram,
    Ending,
    Event,
    Finished,
    LineOver,
    Opened,
    Refused,
    Reset,
    Room,
    Session,
)

TARGET = Target("example.org", 443)


@dataclass
class Side:
    """One end: its machine, what its people wrote, and what reached them."""

    session: Session
    written: dict[int, bytearray] = field(default_factory=lambda: defaultdict(bytearray))
    sent: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    closing: set[int] = field(default_factory=set)
    came: dict[int, bytearray] = field(default_factory=lambda: defaultdict(bytearray))
    ended: set[int] = field(default_factory=set)
    cut: set[int] = field(default_factory=set)
    opened: list[int] = field(default_factory=list)
    accepted: set[int] = field(default_factory=set)
    over: list[LineOver] = field(default_factory=list)


@dataclass
class Wire:
    """One outer: bytes under way to the server and to the client, and who still listens to it."""

    to: dict[str, bytearray]
    heard_by: set[str]


class World:
    """Two ends and the outers between them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sides = {"client": Side(Session(client=True)), "server": Side(Session(client=False))}
        self.wires: dict[int, Wire] = {}
        self.next = 1

    def up(self, budget: int = 0, welcomed: bool = True) -> int:
        """A new outer and its greetings; without a welcome the client holds it for lost before it was up."""
        number = self.next
        self.next += 1
        client, server = self.sides["client"].session, self.sides["server"].session
        told = client.lost_counts()
        for lost, _ in told:
            self.carry_out("server", server.line_lost(lost, self.now))
        answer = tuple((lost, server.received_on(lost)) for lost, _ in told)
        self.wires[number] = Wire({"client": bytearray(), "server": bytearray()}, {"client", "server"})
        self.carry_out("server", server.line_up(number, self.now, budget_bytes=budget, counts=told))
        if not welcomed:
            self.wires[number].heard_by.discard("client")
            self.wires[number].to["client"].clear()
        else:
            self.carry_out("client", client.line_up(number, self.now, budget_bytes=budget, counts=answer))
        self.flush()
        return number

    def cut(self, number: int, who: tuple[str, ...] = ("client", "server")) -> None:
        """An outer ends for one side or both; what was under way to it is gone."""
        wire = self.wires.get(number)
        if wire is None:
            return
        for side in who:
            if side in wire.heard_by:
                wire.heard_by.discard(side)
                wire.to[side].clear()
                self.carry_out(side, self.sides[side].session.line_lost(number, self.now))
        self.flush()

    def deliver(self, number: int, side: str, size: int) -> int:
        """Some bytes arrive."""
        wire = self.wires.get(number)
        if wire is None or side not in wire.heard_by:
            return 0
        data = bytes(wire.to[side][:size])
        if data:
            del wire.to[side][:size]
            self.carry_out(side, self.sides[side].session.receive(number, memoryview(data), self.now))
            self.flush()
        return len(data)

    def write(self, side: str, stream: int, data: bytes) -> None:
        """Somebody writes to a stream."""
        one = self.sides[side]
        if stream not in one.closing and stream not in one.cut:
            one.written[stream] += data
            self.push(side)

    def close(self, side: str, stream: int) -> None:
        """Somebody will write no more."""
        self.sides[side].closing.add(stream)
        self.push(side)

    def push(self, side: str) -> None:
        """Send what was written, as far as there is room."""
        one = self.sides[side]
        for stream, data in one.written.items():
            while (left := len(data) - one.sent[stream]) > 0 and stream not in one.cut:
                room = one.session.room(stream, self.now)
                if room <= 0:
                    break
                size = min(room, left)
                at = one.sent[stream]
                one.session.send(stream, block(data[at : at + size]), size, self.now)
                one.sent[stream] += size
        for stream in one.closing:
            if one.sent[stream] == len(one.written[stream]) and stream not in one.cut:
                one.session.finish(stream, self.now)
        self.flush()

    def tick(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        for side, one in self.sides.items():
            self.carry_out(side, one.session.tick(self.now))
        self.flush()

    def flush(self) -> None:
        """What the machines want to be written is under way."""
        for side, one in self.sides.items():
            for number in one.session.dirty():
                for piece in one.session.take(number):
                    other = "server" if side == "client" else "client"
                    if number in self.wires and self.wires[number].heard_by == {side, other}:
                        self.wires[number].to[other] += piece
            self.carry_out(side, one.session.close_written())

    def carry_out(self, side: str, events: list[Event]) -> None:
        """Do what a machine says, as a shell does."""
        one = self.sides[side]
        for event in events:
            match event:
                case Arrived(stream, pieces):
                    assert stream not in one.ended
                    one.came[stream] += b"".join(pieces)
                    one.session.consumed(stream, sum(map(len, pieces)), self.now)
                case Opened(stream, target, early):
                    assert target == TARGET
                    assert stream not in one.opened
                    one.opened.append(stream)
                    one.came[stream] += early
                    one.session.consumed(stream, len(early), self.now)
                    one.session.accept(stream, self.now)
                case Finished(stream):
                    one.ended.add(stream)
                case Reset(stream) | Refused(stream, _):
                    one.cut.add(stream)
                case Accepted(stream):
                    one.accepted.add(stream)
                case LineOver(number, _, _):
                    one.over.append(event)
                    if number in self.wires:
                        self.wires[number].heard_by.discard(side)
                case Room():
                    pass
                case _:
                    raise AssertionError(event)
        if events:
            self.push(side)

    def settle(self) -> None:
        """Everything arrives over one good outer."""
        for number in list(self.wires):
            self.cut(number)
        good = self.up()
        for _ in range(10_000):
            moved = self.deliver(good, "server", 1 << 20) + self.deliver(good, "client", 1 << 20)
            if not moved:
                before = self.now
                self.tick(0.06)
                if not any(self.wires[good].to.values()):
                    assert self.now > before
                    break
        else:
            raise AssertionError("it never ends")

    def check(self) -> None:
        """What came is what was written, or the stream is over."""
        for here, there in (("client", "server"), ("server", "client")):
            for stream, data in self.sides[here].written.items():
                if stream in self.sides[here].cut or stream in self.sides[there].cut:
                    continue
                assert self.sides[there].came[stream] == data
                assert (stream in self.sides[there].ended) == (stream in self.sides[here].closing)


def block(data: bytes | bytearray) -> memoryview:
    """Room for headers, and what is to be sent behind it."""
    whole = bytearray()
    for at in range(0, len(data), PIECE_MAX_BYTES):
        whole += bytes(DATA_HEADER_BYTES) + data[at : at + PIECE_MAX_BYTES]
    return memoryview(whole)


def script(seed: int, steps: int) -> list[tuple[object, ...]]:
    """So many things that happen, as a seed has them; the same seed begins with the same things."""
    random = Random(seed)
    side = partial(random.choice, ["client", "server"])
    some = partial(random.randrange, 6)
    kinds: dict[Callable[[], tuple[object, ...]], int] = {
        lambda: ("open", random.choice([0, 40])): 5,
        lambda: ("write", side(), some(), random.choice([1, 900, 3000, 70_000, 300_000])): 20,
        lambda: ("close", side(), some()): 2,
        lambda: ("reset", side(), some()): 1,
        lambda: ("deliver", some(), side(), random.choice([1, 3, 10, 40, 700, 5000, 70_000, 1 << 20])): 60,
        lambda: ("cut", some()): 3,
        lambda: ("one-sided", some(), side()): 3,
        lambda: ("up", random.choice([0, 0, 600, 1200, 9000]), random.random() < 0.9): 6,
        lambda: ("retire", some(), side()): 1,
        lambda: ("tick", random.choice([0.01, 0.06, 0.5, 4.0])): 4,
    }
    first: list[tuple[object, ...]] = [("open", 0), ("up", 0, True)]
    return first + [kind() for kind in random.choices(list(kinds), list(kinds.values()), k=steps)]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 1 << 32), st.integers(0, 250))
def test_bytes_are_equal_whatever_happens_to_outers(seed: int, steps: int) -> None:
    world = play(script(seed, steps))
    world.settle()
    world.check()
    for side in world.sides.values():
        assert not side.session.retained
        assert not side.session._undelivered
        assert not side.session._held


def play(actions: list[tuple[object, ...]]) -> World:
    """Let everything in the list happen."""
    world = World()
    world.up()
    random = Random(1)
    streams: list[int] = []
    for action in actions:
        match action:
            case ("open", int(early)):
                data = random.randbytes(early)
                stream = world.sides["client"].session.open(TARGET, data, world.now)
                assert stream is not None
                world.sides["client"].written[stream] += data
                world.sides["client"].sent[stream] = early
                streams.append(stream)
                world.flush()
            case ("write", str(side), int(which), int(size)) if streams:
                stream = streams[which % len(streams)]
                if side == "client" or stream in world.sides["server"].opened:
                    world.write(side, stream, random.randbytes(size))
            case ("close", str(side), int(which)) if streams:
                stream = streams[which % len(streams)]
                if side == "client" or stream in world.sides["server"].opened:
                    world.close(side, stream)
            case ("reset", str(side), int(which)) if streams:
                stream = streams[which % len(streams)]
                if side == "client" or stream in world.sides["server"].opened:
                    world.sides[side].session.reset(stream, world.now)
                    world.sides[side].cut.add(stream)
                    world.flush()
            case ("deliver", int(which), str(side), int(size)) if world.wires:
                world.deliver(pick(world, which), side, size)
            case ("cut", int(which)):
                world.cut(pick(world, which))
            case ("one-sided", int(which), str(side)):
                world.cut(pick(world, which), (side,))
            case ("up", int(budget), bool(welcomed)):
                world.up(budget, welcomed)
            case ("retire", int(which), str(side)):
                world.sides[side].session.retire(pick(world, which), world.now)
                world.flush()
            case ("tick", float(seconds)):
                world.tick(seconds)
    return world


def pick(world: World, which: int) -> int:
    """One of the newest outers."""
    numbers = list(world.wires)[-6:]
    return numbers[which % len(numbers)]


def test_what_came_over_an_outer_of_small_budget_is_not_sent_again_over_the_next_one() -> None:
    world = World()
    stream = world.sides["client"].session.open(TARGET, b"", world.now)
    assert stream is not None
    for outers in range(1, 100):
        number = world.up(budget=12_000)
        if outers == 1:
            world.deliver(number, "server", 1 << 20)
            world.write("server", stream, Random(5).randbytes(100_000))
        while world.deliver(number, "client", 1 << 20) + world.deliver(number, "server", 1 << 20):
            pass
        world.cut(number)  # the client has closed it, and the server sees that
        if len(world.sides["client"].came[stream]) == 100_000:
            break
    world.check()
    assert outers <= 10


def test_what_an_outer_moved_before_it_froze_is_what_the_other_side_has_of_it() -> None:
    world = World()
    stream = world.sides["client"].session.open(TARGET, b"", world.now)
    assert stream is not None
    number = world.up()
    world.write("client", stream, bytes(100_000))
    got = world.deliver(number, "server", 10_000)
    for _ in range(3):
        world.tick(0.06)
        world.deliver(number, "client", 1 << 20)
    for _ in range(100):
        world.tick(0.06)
    over = world.sides["client"].over
    assert [(one.number, one.ending, one.moved_bytes) for one in over] == [(number, Ending.FROZEN, got)]


def served(stream: int = 1) -> Session:
    """A server with one stream that leads to its target."""
    server = Session(client=False)
    server.line_up(1, 0.0)
    say(server, frame(stream, Type.OPEN, encode(TARGET)))
    server.accept(stream, 0.0)
    return server


def say(session: Session, *frames: bytes) -> list[Event]:
    """What a session makes of frames on its first outer."""
    return session.receive(1, memoryview(b"".join(frames)), 0.0)


def in_pieces(session: Session, *pieces: bytes) -> None:
    """One read after another."""
    for piece in pieces:
        say(session, piece)


def said(session: Session, number: int = 1) -> bytes:
    """What it writes on an outer."""
    return b"".join(session.take(number))


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 90)), max_size=60), st.data())
def test_pieces_in_any_order_and_any_number_of_times_are_the_stream_as_far_as_it_has_no_gap(
    pieces: list[tuple[int, int]], data: st.DataObject
) -> None:
    whole = Random(2).randbytes(400)
    server, came, have = served(), bytearray(), set()
    for offset, size in pieces:
        size = min(size, len(whole) - offset)
        one = data_frame(1, offset, whole[offset : offset + size])
        cut = data.draw(st.integers(0, len(one)))
        for part in (one[:cut], one[cut:]):
            for event in say(server, part):
                assert isinstance(event, Arrived)
                came += b"".join(event.pieces)
        have.update(range(offset, offset + size))
    assert bytes(came) == whole[: next(n for n in range(401) if n not in have)]


@pytest.mark.parametrize(
    "wrong",
    [
        data_frame(1, FIRST_WINDOW_BYTES - 3, b"beyond"),
        frame(1, Type.FINISH, NUMBER.pack(FIRST_WINDOW_BYTES + 1)),
        frame(1, Type.FINISH, NUMBER.pack(4)) + data_frame(1, 2, b"more"),
        frame(1, Type.FINISH, NUMBER.pack(4)) + frame(1, Type.FINISH, NUMBER.pack(5)),
        frame(1, Type.FINISH, b"short"),
        count_frame(Type.ACK, 1, 1 << 40),
        frame(0, Type.ACK, b"short"),
        frame(0, Type.PING, bytes(65)),
        frame(0, Type.OPEN, encode(TARGET)),
        frame(1 << 31, Type.OPEN, encode(TARGET)),
        frame(1, Type.ACCEPTED),
        frame(1, Type.DATA, b"short"),
        frame(0, 99),
    ],
    ids=lambda data: data[:12].hex(),
)
def test_what_keeps_no_rule_ends_the_session(wrong: bytes) -> None:
    for cut in (0, 3, 8, len(wrong)):
        server = served()
        said(server)
        with pytest.raises(MuxError):
            in_pieces(server, wrong[:cut], wrong[cut:])


def test_what_is_said_of_streams_that_are_not_there_is_nothing() -> None:
    server = served()
    strange = (data_frame(7, 0, b"x"), frame(7, Type.FINISH, NUMBER.pack(1)), frame(7, Type.CREDIT, NUMBER.pack(9)))
    assert say(server, *strange, count_frame(Type.ACK, 9, 5), frame(0, Type.PADDING, bytes(9))) == []


def test_an_open_that_comes_twice_opens_nothing_twice() -> None:
    server = served()
    again = frame(1, Type.OPEN, encode(TARGET))
    assert say(server, again) == []
    server.reset(1, 0.0)
    assert say(server, again) == []
    assert say(server, frame(3, Type.RESET), frame(3, Type.OPEN, encode(TARGET))) == []


def test_more_streams_than_a_session_may_have_are_refused() -> None:
    server = Session(client=False, streams_max=2)
    server.line_up(1, 0.0)
    opened = say(server, *(frame(number, Type.OPEN, encode(TARGET)) for number in (1, 2, 3)))
    assert [event.stream for event in opened if isinstance(event, Opened)] == [1, 2]
    assert frame(3, Type.REFUSED, b"\x01") in said(server)


def test_a_sender_stops_at_its_credit_and_goes_on_with_more_of_it() -> None:
    world = World()
    stream = world.sides["client"].session.open(TARGET, b"", 0.0)
    assert stream == 1
    number = world.up()
    world.write("client", stream, bytes(1_000_000))
    client = world.sides["client"]
    assert client.sent[stream] == FIRST_WINDOW_BYTES
    assert client.session.room(stream, 0.0) == 0
    world.deliver(number, "server", 1 << 20)
    world.deliver(number, "client", 1 << 20)
    assert client.sent[stream] == 1_000_000


def test_a_sender_keeps_no_more_than_it_may_for_a_side_that_says_nothing() -> None:
    client = Session(client=True, retained_max_bytes=300_000)
    client.line_up(1, 0.0)
    for _ in range(8):
        stream = client.open(TARGET, b"", 0.0)
        assert stream is not None
        while room := client.room(stream, 0.0):
            client.send(stream, block(bytes(room)), room, 0.0)
            client.take(1)
    assert 300_000 <= client.retained <= 300_000 + WINDOW_BYTES
    assert client.room(stream, 0.0) == 0


def test_a_block_is_free_when_the_other_side_has_it_and_not_before() -> None:
    client = Session(client=True)
    client.line_up(1, 0.0)
    stream = client.open(TARGET, b"", 0.0)
    assert stream == 1
    said(client)
    client.room(stream, 0.0)
    one = block(bytes(70_000))
    client.send(stream, one, 70_000, 0.0)
    written = said(client)
    opening = len(frame(1, Type.OPEN, encode(TARGET)))
    say(client, count_frame(Type.ACK, 1, opening + len(written) - 1))
    assert client.freed == []
    say(client, count_frame(Type.ACK, 1, opening + len(written)))
    assert [freed.obj for freed in client.freed] == [one.obj]
    assert not client.retained


def test_nothing_can_be_acknowledged_before_it_is_written() -> None:
    client = Session(client=True)
    client.line_up(1, 0.0)
    client.open(TARGET, b"", 0.0)
    with pytest.raises(MuxError, match="not sent"):
        say(client, count_frame(Type.ACK, 1, 5))


def test_quiet_outers_are_asked_and_count_as_frozen_when_they_do_not_answer() -> None:
    client = Session(client=True)
    client.line_up(1, 0.0, rtt_s=0.05)
    client.open(TARGET, b"", 0.0)
    say(client, count_frame(Type.ACK, 1, len(said(client))))
    assert client.tick(0.2) == []
    assert client.tick(0.4) == []
    assert frame(0, Type.PING, NUMBER.pack(400_000)) in said(client)
    assert client.tick(0.4 + FROZEN_MIN_S) == []
    assert [event.ending for event in client.tick(0.5 + FROZEN_MIN_S) if isinstance(event, LineOver)] == [Ending.FROZEN]


def test_a_datagram_goes_once_and_is_not_kept() -> None:
    client, server = Session(client=True), Session(client=False)
    client.line_up(1, 0.0)
    server.line_up(1, 0.0)
    number = client.associate()
    assert number is not None
    assert client.datagram(number, TARGET, b"query")
    assert not client.retained
    assert say(server, said(client)) == [Datagram(number, TARGET, b"query")]
    client.line_lost(1, 0.0)
    assert not client.datagram(number, TARGET, b"query")


def test_a_session_lives_through_more_streams_than_anybody_counts_also_beside_datagrams() -> None:
    client, server = Session(client=True, streams_max=4), Session(client=False, streams_max=4)
    for side in (client, server):
        side.line_up(1, 0.0)
    assert client.associate() != client.associate()
    for number in range(1, 200):
        assert client.open(TARGET, b"", 0.0) == number
        client.reset(number, 0.0)
        say(server, said(client))
        say(client, said(server))
    assert not client.streams + server.streams
    assert not server._opened_above
