"""Files torn at any 512-byte sector: a node opens with all that was acknowledged before the last whole commit."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from outlast.kernel import Home
from tests.crash.promises import Promises
from tests.crash.toy import House, befriend, house, make

SECTOR = 512


@dataclass
class Count:
    """What happened in all files torn."""

    torn: int = 0
    acknowledged: int = 0
    """Acknowledgements that had to hold, over all torn files."""
    broken: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """One line for people."""
        return f"torn files {self.torn}, acknowledgements looked for {self.acknowledged}, lost {len(self.broken)}"


@dataclass
class _Moment:
    """What was promised when the logs were so long."""

    sizes: dict[str, int]
    promises: Promises


def _logs(home: Home) -> dict[str, Path]:
    (person,) = home.people()
    return {"store": Path(f"{home.store_path}-wal"), "vault": Path(f"{home.vault_path(person)}-wal")}


async def _worked(folder: Path) -> tuple[Path, Path, list[_Moment]]:
    """A home as a power cut leaves it with all in its logs, the same after a clean end, and what was promised when."""
    home, other_home = await make(folder / "own", "own"), await make(folder / "other", "other")
    moments: list[_Moment] = []
    promises = Promises()
    async with house(home) as own, house(other_home) as other:
        await befriend(own, other)
        space = await own.node.new_space(own.person, "news")

        async def note() -> None:
            await own.person.inbox.read()
            sizes = {name: path.stat().st_size for name, path in _logs(home).items()}
            moments.append(_Moment(sizes, copy.deepcopy(promises)))

        for number in range(4):
            text = f"letter {number}"
            promises.letters[await own.send(other.person.identity, text)] = text
            await note()
            text = f"post {number} " + "z" * 2000
            promises.posts[await own.say(space, text)] = text
            await note()
            await other.send(own.person.identity, f"answer {number}")
            await own.read(await other.bundle(to=own.person.identity))
            promises.received.add(f"answer {number}")
            await note()
        shutil.copytree(home.path, folder / "cut")
    return folder / "cut", home.path, moments


async def tear_and_look(folder: Path, choose: Callable[[str, range], Iterable[int]]) -> Count:
    """Tear the logs and the files at the sectors that ``choose`` takes out of all, by the name of what is torn."""
    cut, ended, moments = await _worked(folder)
    count = Count()
    place = folder / "torn"
    home = Home(place)

    async def look(what: str, promises: Promises, *, whole: bool) -> None:
        count.torn += 1
        count.acknowledged += promises.count
        async with house(home) as own:
            broken = await promises.broken(own) if whole else [*await _damage(own), *promises.lost(own)]
            await own.say(own.node.spaces()[-1], "afterwards")
        count.broken += [f"{what}: {line}" for line in broken]
        shutil.rmtree(place)

    for name, log in _logs(Home(cut)).items():
        data = log.read_bytes()
        first = moments[0].sizes[name]
        for at in choose(name, range(first, len(data) + 1, SECTOR)):
            held = [moment.promises for moment in moments if moment.sizes[name] <= at]
            for how, torn in (("cut", data[:at]), ("zero", data[:at] + bytes(len(data) - at))):
                shutil.copytree(cut, place)
                _logs(home)[name].write_bytes(torn)
                await look(f"log of the {name}, {how} at {at}", copy.deepcopy(held[-1]), whole=False)
    # A checkpoint that ends in the middle: some sectors of the file are new, the log is still there.
    for name, file in _files(Home(ended)):
        new, old = file.read_bytes(), (cut / file.relative_to(ended)).read_bytes()
        for at in choose(f"{name} file", range(SECTOR, len(new), SECTOR)):
            shutil.copytree(cut, place)
            (place / file.relative_to(ended)).write_bytes(new[:at] + old[at:])
            await look(f"{name}, new up to {at}", copy.deepcopy(moments[-1].promises), whole=True)
    return count


def _files(home: Home) -> Iterator[tuple[str, Path]]:
    (person,) = home.people()
    yield "store", home.store_path
    yield "vault", home.vault_path(person)


async def _damage(own: House) -> list[str]:
    await own.person.inbox.read()
    rows = [*own.person.query("PRAGMA integrity_check"), *own.node.query("PRAGMA integrity_check")]
    return [] if rows == [("ok",), ("ok",)] else ["a file is damaged"]
