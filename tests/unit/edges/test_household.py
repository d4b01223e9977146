"""Several people on one node: how they come, unlock, lock and go, and that nothing of one is ever shown to another."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from outlast.edges.api import operations_of
from outlast.edges.doors import Tries
from outlast.errors import LockedError, NotFoundError, UsageError
from outlast.kernel import Home, Node, Person, find_rooms
from outlast.rooms.carry import service
from outlast.ui.operation import Call, Nothing
from tests.unit.edges.served import Browser, Served, served

ANNAS = "heron, river, stone"
BORISS = "lamp, winter, ferry"


@asynccontextmanager
async def opened(home: Home) -> AsyncIterator[Node]:
    async with await Node.open(home, rooms=(), dial=False) as node:
        yield node


# ---- in the kernel ----


def test_each_of_two_people_unlocks_alone_and_one_who_leaves_takes_no_key_of_the_other(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")

    async def story() -> None:
        await Node.create(home, "Anna", passphrase=ANNAS, rooms=())
        async with opened(home) as node:
            with pytest.raises(LockedError):
                await node.add_person("Boris", BORISS)
            anna = await node.unlock(ANNAS)
            with pytest.raises(UsageError, match="choose another one"):
                await node.add_person("Boris", ANNAS)
            with pytest.raises(UsageError, match="at least"):
                await node.add_person("Boris", "short")
            with pytest.raises(UsageError, match="nobody else lives"):
                await node.remove_person(anna.key)
            assert (await node.unlock(ANNAS)) is anna
            boris = await node.add_person("Boris", BORISS)
            assert set(node.people) == {anna.key, boris.key} == set(home.people())
            await node.lock_person(anna.key)
            assert (set(node.people), node.locked) == ({boris.key}, False)
        async with opened(home) as node:
            assert node.locked
            with pytest.raises(LockedError):
                await node.unlock("neither of the two")
            assert (node.locked, node.people) == (True, {})
            assert (await node.unlock(BORISS)).name == "Boris"
            assert set(node.people) == {boris.key}
            await node.remove_person(anna.key)
            with pytest.raises(NotFoundError):
                await node.remove_person(anna.key)
        assert home.exists()
        assert home.people() == [boris.key]
        assert not list(home.path.glob(f"**/{anna.key}*"))
        assert not (home.path / "store.key").exists()
        async with opened(home) as node:
            with pytest.raises(LockedError):
                await node.unlock(ANNAS)
            assert (await node.unlock(BORISS)).name == "Boris"

    asyncio.run(story())


def test_beside_somebody_whose_vault_opens_by_itself_another_ones_stays_closed(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")

    async def story() -> None:
        await Node.create(home, "Anna", passphrase=None, rooms=())
        async with opened(home) as node:
            (anna,) = node.people.values()
            boris = await node.add_person("Boris", BORISS)
        async with opened(home) as node:
            assert set(node.people) == {anna.key}
            with pytest.raises(LockedError):
                await node.unlock(ANNAS)
            await node.lock()
            assert (await node.unlock(BORISS)).key == boris.key
            assert set(node.people) == {anna.key, boris.key}
            await node.remove_person(anna.key)
        async with opened(home) as node:
            assert (node.locked, node.people) == (False, {})
            await node.unlock(BORISS)

    asyncio.run(story())


def test_one_who_is_locked_in_the_middle_of_work_disturbs_nobody(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")

    async def story() -> None:
        await Node.create(home, "Anna", passphrase=None, rooms=find_rooms())
        async with await Node.open(home, dial=False) as node:
            (anna,) = node.people.values()
            boris = await node.add_person("Boris", BORISS)
            contact = await anna.add_contact(await boris.link())
            for turn in range(6):
                await service.send(node, anna, contact.identity, f"line {turn}")
                work = [node._tidy(), node.copied(anna.own_mail()), node.lock_person(boris.key)]
                await asyncio.gather(*work)
                assert boris.key not in node.people
                boris = await node.unlock(BORISS)
            assert len(service.sent(anna)) == 6
            assert not node.failed.done()

    asyncio.run(story())


def test_mail_between_two_people_of_one_node_waits_for_the_locked_one_without_a_receipt(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")

    async def until(node: Node, said: Any) -> None:
        async with asyncio.timeout(60):
            while not said():
                await node.wait(node.revision)

    async def story() -> None:
        await Node.create(home, "Anna", passphrase=None, rooms=find_rooms())
        async with await Node.open(home, dial=False) as node:
            (anna,) = node.people.values()
            boris = await node.add_person("Boris", BORISS)
            contact = await anna.add_contact(await boris.link())
            await boris.add_contact(await anna.link())
            await node.lock_person(boris.key)
            letter = await service.send(node, anna, contact.identity, "while you were out")
            await node.write(lambda: None)
            (message,) = service.sent(anna)
            assert [one.event for one in service.custody(anna, [message])[letter]] == ["kept"]
            boris = await node.unlock(BORISS)
            await until(node, lambda: service.inbox(boris))
            await until(node, lambda: len(service.custody(anna, [message])[letter]) > 1)
            assert [one.event for one in service.custody(anna, [message])[letter]] == ["kept", "received"]

    asyncio.run(story())


# ---- on the page ----


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A node on which Anna and Boris live, both unlocked, and each has said and kept something of every kind."""
    with served(tmp_path_factory.mktemp("shared"), name="Anna", passphrase=ANNAS, rooms=find_rooms()) as node:
        node.run(node.node.unlock(ANNAS))
        yield node


def came_in(node: Served, browser: Browser, passphrase: str) -> None:
    assert browser.post("/enter", data={"passphrase": passphrase}).status_code == 303


def add_boris(node: Served) -> None:
    """Boris types name and passphrase in Anna's browser, once for all tests."""
    if len(node.home.people()) == 2:
        return
    with node.stranger() as browser:
        came_in(node, browser, ANNAS)
        page = browser.get("/household/add").text
        assert 'name="protection"' not in page
        csrf = re.findall(r'name="csrf" value="([^"]+)"', page)[-1]
        form = {"csrf": csrf, "how": "new", "name": "Boris", "passphrase": BORISS}
        assert browser.post("/household/add", data=form | {"again": "another"}).status_code == 400
        assert browser.post("/household/add", data=form | {"again": "another", "how": "nohow"}).status_code == 400
        taken = browser.post("/household/add", data=form | {"passphrase": ANNAS, "again": ANNAS})
        assert (taken.status_code, "Boris" in taken.text, ANNAS in taken.text) == (400, True, False)
        done = browser.post("/household/add", data=form | {"again": BORISS})
        assert (done.status_code, done.headers["location"]) == (303, "/first/words")
        assert " ".join(person(node, "Boris").words()).split()[0] in browser.get("/first/words").text
        assert "Anna" not in browser.get("/household").text


def person(node: Served, name: str) -> Person:
    return next(one for one in node.node.people.values() if one.name == name)


def test_a_newcomer_types_their_own_passphrase_and_the_browser_is_theirs(shared: Served) -> None:
    add_boris(shared)
    with shared.stranger() as annas, shared.stranger() as boriss:
        came_in(shared, annas, ANNAS)
        came_in(shared, boriss, BORISS)
        sessions = {one.person for one in shared.serving.web.sessions._open.values()}
        assert {person(shared, "Anna").key, person(shared, "Boris").key} <= sessions
        assert "Boris" not in annas.get("/household").text + annas.get("/people").text


def test_who_has_the_link_from_the_terminal_gives_a_passphrase_where_several_live(shared: Served) -> None:
    add_boris(shared)
    with shared.owner() as browser:
        assert browser.get("/people").status_code == 423
        browser.post("/unlock", data={"csrf": browser.token(), "passphrase": BORISS})
        assert browser.get("/people").status_code == 200


def test_locking_ones_own_vault_leaves_the_other_open_and_ends_the_own_streams(shared: Served) -> None:
    add_boris(shared)
    key = person(shared, "Boris").key
    with shared.stranger() as annas, shared.stranger() as boriss:
        came_in(shared, annas, ANNAS)
        came_in(shared, boriss, BORISS)
        with boriss.stream("GET", "/events") as stream:
            lines = stream.iter_lines()
            assert next(lines)
            assert boriss.submit("/settings/lock").status_code == 303
            assert not [line for line in lines if line.startswith("id:") and "open" in line]
        assert key not in shared.node.people
        assert boriss.get("/people").status_code == 423
        assert annas.get("/people").status_code == 200
        boriss.post("/unlock", data={"csrf": boriss.token(), "passphrase": BORISS})
        assert boriss.get("/people").status_code == 200


def test_one_who_unlocks_in_the_browser_of_another_says_nothing_by_a_page_that_the_other_left_open(
    shared: Served,
) -> None:
    add_boris(shared)
    shared.serving.web.tries = Tries(5, 15_000)
    with shared.stranger() as browser:
        came_in(shared, browser, BORISS)
        page_of_boris, cookies_of_boris = browser.token(), dict(browser.cookies)
        assert browser.submit("/settings/lock").status_code == 303
        assert browser.post("/unlock", data={"csrf": page_of_boris, "passphrase": ANNAS}).status_code == 303
        assert "Hello, Anna" in browser.get("/").text
        form = {"csrf": page_of_boris, "quiet": "on"}
        assert browser.post("/carry/notices", data=form).status_code == 403
        assert browser.post("/carry/notices", data=form | {"csrf": browser.token()}).status_code == 303
        with shared.stranger(cookies=cookies_of_boris) as old:
            assert old.get("/people").status_code == 401
    shared.run(shared.node.unlock(BORISS))


def test_the_names_of_people_are_not_shown_to_who_was_not_let_in(shared: Served) -> None:
    add_boris(shared)
    with shared.stranger() as stranger, shared.owner() as launched:
        for page in ("/", "/help", "/household", "/people", "/settings", "/unlock", "/lost"):
            for browser in (stranger, launched):
                shown = browser.get(page)
                assert not re.search("Anna|Boris", shown.text + str(shown.headers)), page


def test_who_knows_one_passphrase_of_the_node_guesses_no_faster_at_another(shared: Served) -> None:
    add_boris(shared)
    shared.serving.web.tries = Tries(5, 3_600_000)
    with shared.stranger() as browser:
        guesses = ["a wrong guess"] * 3 + [BORISS] + ["a wrong guess"] * 3
        found = [browser.post("/enter", data={"passphrase": guess}) for guess in guesses[:3]]
        with shared.stranger() as own:
            found += [own.post("/enter", data={"passphrase": BORISS})]
        found += [browser.post("/enter", data={"passphrase": guess}) for guess in guesses[4:]]
    assert [one.status_code for one in found] == [423] * 3 + [303] + [423] * 2 + [429]


def test_one_who_uses_up_their_tries_leaves_another_theirs(shared: Served) -> None:
    add_boris(shared)
    shared.serving.web.tries = Tries(5, 15_000)
    with shared.stranger() as annas, shared.stranger() as boriss:
        came_in(shared, annas, ANNAS)
        came_in(shared, boriss, BORISS)
        shared.serving.web.tries = Tries(1, 3_600_000)
        assert [boriss.submit("/backup/words", passphrase="a wrong guess").status_code for _ in "12"] == [400, 429]
        assert annas.submit("/backup/words", passphrase=ANNAS).status_code == 200


def test_who_came_in_by_the_terminal_s_link_as_one_is_never_taken_for_who_lives_here_afterwards(tmp_path: Path) -> None:
    with served(tmp_path / "home", name="Anna", passphrase=ANNAS) as node, node.owner() as annas:
        anna = node.run(node.node.unlock(ANNAS))
        assert "Hello, Anna" in annas.get("/").text
        node.run(node.node.add_person("Boris", BORISS))
        node.run(node.node.remove_person(anna.key))
        assert annas.get("/people").status_code == 423
        with node.owner() as launched:
            assert launched.get("/people").status_code == 423
            assert "Boris" not in launched.get("/").text


def test_a_phone_of_one_whose_vault_is_locked_can_join_another(tmp_path: Path) -> None:
    with served(tmp_path / "home", name="Anna", passphrase=ANNAS) as node:
        anna = node.run(node.node.unlock(ANNAS))
        with node.phone() as phone, node.stranger() as boriss:
            node.run(node.node.add_person("Boris", BORISS))
            node.run(node.node.lock_person(anna.key))
            came_in(node, boriss, BORISS)
            boriss.submit("/phones/invite")
            path = re.findall(r"/join/[\w-]+", boriss.get("/phones/invite").text)[0]
            shown = phone.get(path).text
            form = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', shown))
            assert phone.post(path, data={**form, "label": "shared"}).status_code == 303


# ---- commands ----


def test_the_local_api_says_for_whom_it_asks(shared: Served) -> None:
    add_boris(shared)
    operation = operations_of(())["id"]

    async def name(whose: str) -> str:
        return str((await operation.answer(Call(shared.node, Nothing(), whose=whose)))["name"])

    assert shared.run(name("boris")) == "Boris"
    assert shared.run(name(person(shared, "Anna").key[:6])) == "Anna"
    with pytest.raises(UsageError, match="--person"):
        shared.run(name(""))
    with pytest.raises(LockedError, match="Vera"):
        shared.run(name("Vera"))


# ---- lost phones ----


def test_a_phone_ended_by_a_command_is_out_at_once_and_its_stream_ends(tmp_path: Path) -> None:
    operations = operations_of(())

    with served(tmp_path / "home") as node, node.phone("Anna's old phone") as phone:

        async def ask(name: str, **params: Any) -> Any:
            return await operations[name].answer(Call(node.node, operations[name].read(params)))

        (one,) = node.run(ask("phone.list"))
        assert one["label"] == "Anna's old phone"
        with pytest.raises(NotFoundError):
            node.run(ask("phone.end", phone="00000000"))
        with phone.stream("GET", "/events") as stream:
            lines = stream.iter_lines()
            assert next(lines)
            assert node.run(ask("phone.end", phone=one["phone"][:8])) == [one]
            for _line in lines:
                pass  # ends by itself
        assert phone.get("/people").status_code == 401
        assert node.run(ask("phone.list")) == []
        with node.owner() as owner:
            assert "old phone" not in owner.get("/phones").text


def test_all_phones_are_shut_out_by_one_press(tmp_path: Path) -> None:
    with served(tmp_path / "home") as node, node.phone("one") as one, node.phone("two") as two, node.owner() as owner:
        assert owner.get("/lost").text.count('name="phone"') == 3
        answer = owner.submit("/phones/lost", phone="all")
        assert (answer.status_code, answer.headers["location"]) == (303, "/phones?said=all-lost")
        assert [phone.get("/people").status_code for phone in (one, two)] == [401, 401]
        assert owner.submit("/phones/lost", phone="all").status_code == 404
