"""The code of a Wi-Fi, and starting one through NetworkManager's command, for which a small program stands in."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.edges.hotspot import Network, added, can_start, checked, new_password, start, stop, wifi_text
from outlast.errors import StorageError, UsageError
from tests.unit.edges.served import served

NMCLI = """#!/bin/sh
printf '%s\\n' "$*" >> "$RECORD"
case "$*" in
  *" up "*) cat >> "$RECORD"; [ -z "$REFUSE" ] || { echo "Error: $REFUSE" >&2; exit 4; } ;;
esac
"""


def read(code: str) -> dict[str, str]:
    """A Wi-Fi's code as a phone reads it."""
    fields = re.findall(r"([TSP]):((?:\\.|[^\\;])*);", code.removeprefix("WIFI:"))
    plain = {name: re.sub(r"\\(.)", r"\1", value) for name, value in fields}
    return {
        name: value[1:-1] if value[:1] == value[-1:] == '"' and name != "T" else value for name, value in plain.items()
    }


@pytest.mark.parametrize(
    ("network", "code"),
    [
        (Network("home", "kingfisher 7"), "WIFI:T:WPA;S:home;P:kingfisher 7;;"),
        (Network('a;b,"c\\:', "se;cret:,12"), 'WIFI:T:WPA;S:a\\;b\\,\\"c\\\\\\:;P:se\\;cret\\:\\,12;;'),
        (Network("Дом", ""), "WIFI:T:nopass;S:Дом;;"),
        (Network("beef", "12345678"), 'WIFI:T:WPA;S:"beef";P:"12345678";;'),
    ],
)
def test_the_code_escapes_what_phones_would_read_otherwise(network: Network, code: str) -> None:
    assert wifi_text(network) == code


@given(st.text(min_size=1, max_size=8).filter(str.isprintable), st.from_regex(r"\A[!#-~]{8,20}\Z"))
def test_a_phone_reads_the_name_and_the_password_that_were_meant(ssid: str, password: str) -> None:
    if ssid[0] == '"' == ssid[-1]:
        return
    found = read(wifi_text(checked(ssid, password)))
    assert found == {"T": "WPA", "S": ssid, "P": password}


@pytest.mark.parametrize(
    ("ssid", "password"),
    [
        ("", "12345678"),
        ("Дом" * 6, "12345678"),
        ("a\nb", "12345678"),
        ("home", "short"),
        ("home", "пароль-пароль"),
        ("h", "x" * 64),
    ],
)
def test_what_wifi_does_not_allow_is_refused(ssid: str, password: str) -> None:
    with pytest.raises(UsageError):
        checked(ssid, password)


def test_a_new_password_is_one_that_wifi_allows() -> None:
    assert checked("home", new_password()).password != new_password()


def test_the_hotspot_isolates_its_phones_and_its_password_is_in_no_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = stand_in(tmp_path, monkeypatch)
    asyncio.run(start(Network("home", "kingfisher")))
    said = record.read_text().splitlines()
    assert said[1] == " ".join(added(Network("home", "kingfisher")))
    assert "802-11-wireless.ap-isolation 1" in said[1]
    assert said[-1] == "802-11-wireless-security.psk:kingfisher"
    assert not any("kingfisher" in line for line in said[:-1])
    asyncio.run(stop())
    assert record.read_text().splitlines()[-1] == "connection delete id outlast-hotspot"


def test_networkmanager_starts_the_hotspot_with_the_password_that_the_code_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # nmcli reads a backslash there as an escape, and takes spaces away at both ends that are none.
    record = stand_in(tmp_path, monkeypatch)
    password = r" c:\temp\101 #;:=' "
    asyncio.run(start(Network("home", password)))
    said = record.read_text().splitlines()[-1].removeprefix("802-11-wireless-security.psk:")
    assert re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), said.strip()) == password


def test_a_hotspot_that_cannot_start_says_why_in_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = stand_in(tmp_path, monkeypatch)
    monkeypatch.setenv("REFUSE", "No suitable device found")
    with pytest.raises(StorageError, match=r"^the hotspot cannot be started: Error: No suitable device found$"):
        asyncio.run(start(Network("home", "kingfisher")))
    assert record.read_text().splitlines()[-1].startswith("connection delete")
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert not can_start()
    with pytest.raises(StorageError, match="no NetworkManager"):
        asyncio.run(start(Network("home", "kingfisher")))


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = folder / "nmcli"
    program.write_text(NMCLI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("RECORD", str(folder / "record"))
    return folder / "record"


def test_the_page_shows_the_code_of_the_wifi_before_that_of_the_node_and_phones_do_not_see_it(tmp_path: Path) -> None:
    with served(tmp_path / "ala", lan=True) as ala, ala.owner() as here, ala.phone() as phone:
        assert "1. Join the Wi\u2011Fi" not in here.get("/hotspot").text
        assert here.submit("/hotspot", ssid="home", password="short").status_code == 400
        assert here.submit("/hotspot", ssid="home", password="kingfisher").status_code == 303
        page = here.get("/hotspot").text
        assert page.index("1. Join the Wi\u2011Fi") < page.index("kingfisher") < page.index("2. Open this node")
        assert ala.lan_url in page
        assert phone.get("/hotspot").status_code == 403
