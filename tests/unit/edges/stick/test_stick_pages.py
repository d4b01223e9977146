"""Sticks on the page: one press to read, one to write, erasing after a tick, and the folder named by hand."""

from __future__ import annotations

from pathlib import Path

from outlast.edges.stick.memory import Targets
from tests.unit.edges.served import served


def test_a_folder_named_by_hand_is_written_read_and_erased_by_the_page(tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    with (
        served(tmp_path / "ala") as ala,
        served(tmp_path / "boris", name="Boris") as boris,
        ala.owner() as here,
        boris.owner() as there,
    ):
        ala.run(ala.person.add_contact(boris.run(boris.person.link())))
        assert "Plugged in" not in here.get("/").text
        for browser in (here, there):
            assert browser.submit("/stick/folder", folder=str(stick)).status_code == 303
        assert "Plugged in: stick. See what is on it." in here.get("/").text
        assert "Nothing of Outlast is on this stick." in here.get("/stick").text
        assert here.submit("/stick/give", stick=str(stick)).status_code == 400
        assert here.submit("/stick/give", stick=str(stick), **{f"to-{boris.person.id}": "on"}).status_code == 303
        page = here.get("/stick").text
        assert "All of it is on the stick." in page
        assert "written here for Boris" in page
        assert len(list(stick.iterdir())) == 1
        assert "for you" in there.get("/stick").text
        assert there.submit("/stick/take", stick=str(stick)).status_code == 303
        page = there.get("/stick").text
        assert "Files read: 1." in page
        assert "for you, read already" in page
        there.submit("/stick/out", stick=str(stick))
        assert "Now eject it" in there.get("/stick").text
        assert here.submit("/stick/auto", stick=str(stick), on="on").status_code == 303
        assert "No longer by itself" in here.get("/stick").text
        assert here.submit("/stick/erase", stick=str(stick)).status_code == 400
        here.submit("/stick/erase", stick=str(stick), sure="on")
        assert list(stick.iterdir()) == []
        here.submit("/stick/folder", forget=str(stick))
        assert "found by itself" in here.get("/stick").text


def test_a_folder_that_is_no_stick_cannot_be_named_in_a_form(tmp_path: Path) -> None:
    with served(tmp_path / "ala") as ala, ala.owner() as here:
        for path in ("/stick/take", "/stick/out", "/stick/erase"):
            assert here.submit(path, stick=str(tmp_path), sure="on").status_code == 404
        assert here.submit("/stick/folder", folder=str(tmp_path / "none")).status_code == 400
        assert here.submit("/stick/folder", folder=str(tmp_path)).status_code == 400


def test_a_phone_reads_and_writes_a_stick_and_does_not_erase_or_name_one(tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    with served(tmp_path / "ala", lan=True) as ala, ala.owner() as here, ala.phone() as phone:
        here.submit("/stick/folder", folder=str(stick))
        assert phone.submit("/stick/take", stick=str(stick)).status_code == 303
        for path in ("/stick/erase", "/stick/auto", "/stick/folder"):
            assert phone.submit(path, stick=str(stick), sure="on", folder="/").status_code == 403
        assert ala.run(_nothing_known(ala.person)) == Targets()


async def _nothing_known(person: object) -> Targets:
    from outlast.edges.stick.memory import memory
    from outlast.kernel import Person

    assert isinstance(person, Person)
    return memory(person).chosen
