"""A relay is taken with its passphrase, killed while it was up: it names no author of mail, no receiver and no pair."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from outlast import address
from outlast.edges.client import ask_running
from outlast.kernel import mail
from outlast.kernel.entry import DAY_MS, HOUR_MS, Entry
from outlast.kernel.home import Home
from outlast.kernel.identity import node_text, parse_node
from outlast.testing.clock import FakeClock
from tests.e2e.program import PASSPHRASE, Program, made, secret_file
from tests.kernel.society import until
from tests.seizure import likeness, needles, replay
from tests.seizure.taken import Taken, open_file, take
from tests.seizure.village import Truth, Village, befriend, first_morning, is_known, mail_at, read_all, village, write

pytestmark = pytest.mark.xdist_group("seizure")

ANAHIT, BORYS, CIGDEM, DOROTA = "Anahit Petrosyan", "Борислав Ковальчук", "Çiğdem Yıldırım", "Dorota Grzegorzewska"
PAIRS = ((ANAHIT, BORYS), (CIGDEM, DOROTA))
DAYS = 3
LENGTHS = (20, 60, 90, 250, 700, 2500, 9000)
FIRST_LETTERS = 12
"""Further letters of everybody before the first answer; all of that day are introductions."""
PATIENCE_S = 100.0
PHRASE = "we meet at the old mill. "


@dataclass(frozen=True)
class Story:
    """What is true, and only the people themselves know."""

    truth: dict[bytes, Truth]
    needles: needles.Needles
    called: tuple[bytes, str, int]
    """The neighbour that the relay was told to call: its node, host and port."""
    told: str
    """What the relay's own commands answered."""


@dataclass(frozen=True)
class Seizure:
    """A relay in other hands: its home, and all that its process ever wrote to its terminal."""

    taken: Taken
    said: str
    story: Story
    homes: list[Path]
    """Those of the people, closed by now."""

    @property
    def envelopes(self) -> list[Entry]:
        """Its mail, in the order in which it came."""
        return list(replay.entries_of(self.taken.store).values())

    def of_kind(self, kind: str) -> list[Entry]:
        """The envelopes that really are texts, receipts or introductions."""
        return [one for one in self.envelopes if self.story.truth[one.id].kind == kind]


@pytest.fixture(scope="module")
def seizure(tmp_path_factory: pytest.TempPathFactory) -> Seizure:
    """Four people on four nodes write for days through a relay that is a process of its own; then it is killed."""
    folder = tmp_path_factory.mktemp("seizure")
    relay = made(folder / "relay", "Rita Relay", PASSPHRASE)
    with relay.up("--listen", "127.0.0.1:0", "--passphrase-file", secret_file(folder), listeners=3) as running:
        days = days_of_writing(folder / "village", relay, address.read(running.at["nodes"]), running.port)
        story = asyncio.run(asyncio.wait_for(days, PATIENCE_S))
        running.process.send_signal(signal.SIGKILL)
        out, err = running.process.communicate(timeout=60)
    said = "\n".join((*running.at.values(), out, err))
    return Seizure(take(relay.home, PASSPHRASE), said, story, sorted((folder / "village").iterdir()))


async def days_of_writing(folder: Path, relay: Program, address: tuple[str, int], page: int) -> Story:
    """Texts, introductions, receipts and read receipts between two pairs, while one of them is away for a day."""
    relay_node = parse_node((await run(relay, "id"))["node"])
    clock = FakeClock(first_morning())
    async with village(folder, clock) as place:
        for name in (ANAHIT, BORYS, CIGDEM, DOROTA):
            await place.join(name)
        people = place.people
        for one, other in PAIRS:
            await befriend(people[one], people[other])
        identities = {name: person.identity for name, person in people.items()}
        listener = people[DOROTA].node
        called = listener.transport_id, "127.0.0.1", await listener.listen("127.0.0.1", 0)
        letters: dict[str, list[bytes]] = {name: [] for name in people}
        numbers = itertools.count()
        for day in range(DAYS):
            if day == 1:
                await place.go(BORYS)
            for one, other in ((a, b) for pair in PAIRS for a, b in (pair, pair[::-1]) if a in people):
                lengths = (*LENGTHS, *([40] * FIRST_LETTERS if day == 0 else []))
                texts = [f"{one} number {next(numbers)}: " + (PHRASE * 400)[:length] for length in lengths]
                letters[one] += await write(people[one], identities[other], *texts)
                clock.advance(HOUR_MS + 77_777)
            if day == 0:
                for name in (ANAHIT, BORYS, CIGDEM):
                    await people[name].node.peer_add(relay_node, *address)
                await run(relay, "peer", "add", f"127.0.0.1:{called[2]}", node_text(called[0]))
            if day == 1:
                await place.come(BORYS)
            await until(lambda: has_all(place, letters, "received"), *people.values())
            for person in people.values():
                await read_all(person)
            await until(lambda: has_all(place, letters, "read"), *people.values())
            if day == 1:
                await asyncio.to_thread(disturb, address, page, f"{ANAHIT} number 3")
            clock.advance(days=1, ms=-3 * HOUR_MS)
        truth = place.truth()
        await until(lambda: all(len(mail_at(p.node)) == len(truth) for p in people.values()), *people.values())
        found = needles.of_text("a phrase", PHRASE)
        for person in people.values():
            found |= await needles.of_person(person)
            if person.node is not listener:
                found |= needles.of_bytes(f"the node of {person.name}", person.node.transport_id)
        asked = ("carry.inbox", "carry.sent", "contact.list", "carry.channels", "id")
        told = [str(await asyncio.to_thread(ask_running, relay.home, what, {})) for what in asked]
        return Story(truth, found, called, "\n".join(told))


async def run(relay: Program, *command: str) -> Any:
    """What a command to the running relay answers."""
    return await asyncio.to_thread(relay.json, *command)


def has_all(place: Village, letters: dict[str, list[bytes]], event: str) -> bool:
    """Whether everybody knows that of all their letters."""
    return all(is_known(person, letters[name], event) for name, person in place.people.items())


def disturb(address: tuple[str, int], page: int, text: str) -> None:
    """Strangers and mistakes, of the sort that programs like to write down: garbage, a link cut short, odd requests."""
    for garbage in (text.encode() * 50, bytes(64), b""):
        with contextlib.suppress(OSError), socket.create_connection(address, 20) as link:
            link.sendall(garbage)
            link.shutdown(socket.SHUT_WR)
            link.settimeout(1)
            link.recv(4096)
    question = urllib.parse.quote(text)
    for path in (f"/carry/{question}", f"/?q={question}", f"/api/v1/contact/add?link={question}"):
        with contextlib.suppress(urllib.error.URLError):
            urllib.request.urlopen(f"http://127.0.0.1:{page}{path}", timeout=20).read()


class TestItsHome:
    def test_all_mail_of_all_sorts_went_through_it(self, seizure: Seizure) -> None:
        held, truth = seizure.envelopes, seizure.story.truth
        assert {one.id for one in held} == truth.keys()
        sorts = Counter((truth[one.id].pair, truth[one.id].kind) for one in held)
        for pair in PAIRS:
            assert all(sorts[frozenset(pair), kind] >= 5 for kind in ("text", "receipt", "introduction")), sorts
        assert len({one.header.expires_day for one in held}) == DAYS
        assert {one.header.payload_size for one in held} == set(mail.PAYLOAD_CLASSES)

    def test_nothing_names_anybody_or_says_what_they_wrote(self, seizure: Seizure) -> None:
        assert len(seizure.story.needles) > 1000
        assert needles.search(seizure.story.needles, seizure.taken.everything()) == []

    def test_its_log_was_full_and_every_page_was_searched(self, seizure: Seizure) -> None:
        """Else the search would prove little: what is known to stand in the store stands in the pages searched."""
        store, files = seizure.taken.store, seizure.taken.files
        assert len(files["store.db-wal"]) > 100 * 4096
        assert len(store.pages) > len(files["store.db"]) // 4096 + 100
        pages = b"".join(store.pages)
        assert all(one.header.author in pages and one.header.tags[0] in pages for one in seizure.envelopes)

    def test_its_store_knows_no_more_than_what_came_and_in_which_order(self, seizure: Seizure, tmp_path: Path) -> None:
        """No column says who brought an entry, when, or who has it now: a store that was told none of it is like it."""
        assert replay.differences(seizure.taken.store, tmp_path) == []

    def test_of_itself_it_knows_its_key_the_date_and_whom_it_calls(self, seizure: Seizure) -> None:
        tables = seizure.taken.store.tables
        meta: dict[str, bytes] = dict(tables["meta"])
        assert meta.keys() <= {"transport", "pruned_day", "tidy_day", "confirmed_day", "floor_ms"}
        assert int.from_bytes(meta.get("floor_ms", b""), "big") % DAY_MS == 0, "a time finer than a day"
        (peer,) = tables["peer"]
        assert peer[:-1] == seizure.story.called
        assert peer[-1] <= max(row[0] for row in tables["change"]), "how far that neighbour has chosen, and no more"
        assert tables["spent"] == tables["held"] == tables["refused"] == []

    def test_the_vault_of_who_runs_it_holds_nothing_of_others(self, seizure: Seizure) -> None:
        (vault,) = seizure.taken.vaults
        assert {name for name, rows in vault.tables.items() if rows and not name.startswith(("sqlite_", "local_"))} <= {
            "meta",
            "prekey",
            "invite",
            "room",
        }

    def test_its_files_are_those_of_every_home(self, seizure: Seizure) -> None:
        databases = {f"{name}.db{more}" for name in ("store", "vault") for more in ("", "-wal", "-shm")}
        names = {path.rpartition("/")[2] for path in seizure.taken.files}
        assert names <= databases | {"lock", "reserve", "store.chunks", "store.key", "vault.key"}

    def test_neither_its_terminal_nor_its_commands_name_anybody(self, seizure: Seizure) -> None:
        told = [("the terminal", seizure.said.encode()), ("a command", seizure.story.told.encode())]
        assert needles.search(seizure.story.needles, told) == []
        assert "Rita Relay" in seizure.story.told
        assert seizure.said.strip().count("\n") <= 5, seizure.said


class TestStoresOfThoseWhoWrite:
    """Who takes one of their computers and has the key of its store, but no person's."""

    def test_they_know_no_more_than_what_came_and_in_which_order(self, seizure: Seizure, tmp_path: Path) -> None:
        """What was written here stands there as what others wrote."""
        for home in seizure.homes:
            (tmp_path / home.name).mkdir()
            store = open_file(Home(home).store_path, Home(home).open_key(None))
            assert replay.differences(store, tmp_path / home.name) == []

    def test_when_their_person_wrote_last_stands_there_to_the_day_at_most(self, seizure: Seizure) -> None:
        stores = [open_file(Home(home).store_path, Home(home).open_key(None)) for home in seizure.homes]
        floors = [value for store in stores for name, value in store.tables["meta"] if name == "floor_ms"]
        assert floors, "nobody who had written came back"
        assert all(int.from_bytes(value, "big") % DAY_MS == 0 for value in floors)

    def test_they_name_nobody(self, seizure: Seizure) -> None:
        for home in seizure.homes:
            store = open_file(Home(home).store_path, Home(home).open_key(None))
            assert needles.search(seizure.story.needles, store.everything()) == []


class TestItsMail:
    def test_headers_differ_in_nothing_but_what_is_used_once(self, seizure: Seizure) -> None:
        likeness.have_equal_headers(seizure.envelopes)

    def test_no_key_is_used_twice(self, seizure: Seizure) -> None:
        likeness.share_no_keys(seizure.envelopes)

    def test_no_two_envelopes_share_eight_bytes(self, seizure: Seizure) -> None:
        likeness.share_no_run([likeness.own_bytes(one) for one in seizure.envelopes])

    @pytest.mark.parametrize("kind", ["text", "receipt", "introduction"])
    def test_what_is_sealed_looks_like_chance_whatever_it_is(self, seizure: Seizure, kind: str) -> None:
        envelopes = seizure.of_kind(kind)
        likeness.look_random(b"".join((one.payload or b"")[32:] for one in envelopes))
        likeness.have_no_mark(likeness.bits_of(envelopes))

    @pytest.mark.parametrize(
        "by",
        [
            pytest.param(lambda t: t.pair, id="pair"),
            pytest.param(lambda t: (t.sender, t.receiver), id="direction"),
            pytest.param(lambda t: t.kind, id="kind"),
            pytest.param(lambda t: (t.pair, t.kind), id="pair and kind"),
        ],
    )
    def test_two_envelopes_that_belong_together_are_as_unlike_as_any(
        self, seizure: Seizure, by: Callable[[Truth], Hashable]
    ) -> None:
        labels = [by(seizure.story.truth[one.id]) for one in seizure.envelopes]
        likeness.do_not_cluster(likeness.bits_of(seizure.envelopes), labels)

    def test_a_size_tells_no_more_than_how_long_a_letter_is(self, seizure: Seizure) -> None:
        """A receipt has the size of a text, and an introduction, which carries a certificate, that of a longer text."""
        sizes = {kind: likeness.sizes_of(seizure.of_kind(kind)).keys() for kind in ("text", "receipt", "introduction")}
        assert sizes["text"] == set(mail.PAYLOAD_CLASSES)
        assert min(sizes["receipt"]) == 512
        assert sizes["receipt"] | sizes["introduction"] <= sizes["text"]
