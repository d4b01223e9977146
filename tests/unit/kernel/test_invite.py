"""Links survive what mail programs do to them, and say in one line what is wrong with them."""

from __future__ import annotations

import base64
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.errors import OutlastError, UsageError
from outlast.kernel.identity import NAME_MAX_CHARS, certify, sign_prekey
from outlast.kernel.invite import (
    LINK_LIFE_DAYS,
    LINK_MAX_CHARS,
    ChannelInvitation,
    Invitation,
    InviteError,
    make_channel_link,
    make_link,
    parse_channel,
    read_channel_link,
    read_link,
)
from tests.unit.kernel.people import person, secret

ALICE, MALLORY = person("alice"), person("mallory")
DAY = 20_778
PREKEY = ALICE.prekeys[0].public
INTRO = secret("intro")[:16]
SPACE = secret("space")
CONTACT = "outlast://contact/"
CHANNEL = "outlast://channel/"


def link(day: int = DAY) -> str:
    signature = sign_prekey(ALICE.signing, PREKEY, day)
    return make_link(ALICE.device.certificate, PREKEY, day, signature, INTRO)


def text_of(prefix: str, *fields: object) -> str:
    return prefix + base64.urlsafe_b64encode(msgspec.msgpack.encode(fields)).decode().rstrip("=")


def contact_fields() -> list[object]:
    signature = sign_prekey(ALICE.signing, PREKEY, DAY)
    return [1, ALICE.device.certificate, PREKEY, DAY, signature, INTRO]


class TestContactLink:
    def test_it_says_who_and_how_to_write_to_them(self) -> None:
        assert read_link(link(), today=DAY) == Invitation(ALICE.device, PREKEY, DAY, INTRO)

    def test_it_is_plain_text_that_needs_no_quoting(self) -> None:
        text = link()
        assert text.startswith(CONTACT)
        assert set(text.removeprefix(CONTACT)) <= set(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
        )
        assert len(text) < 550

    def test_the_longest_is_short_enough(self) -> None:
        certificate = certify(
            ALICE.identity,
            ALICE.signing,
            ALICE.seal.public,
            2**31 - 1,
            "\U0001f600" * NAME_MAX_CHARS,
            MALLORY.signing,
        )
        signature = sign_prekey(ALICE.signing, PREKEY, 2**31)
        text = make_link(certificate, PREKEY, 2**31, signature, INTRO)
        assert len(text) <= LINK_MAX_CHARS
        assert read_link(text, today=DAY).device.name == "\U0001f600" * NAME_MAX_CHARS

    @pytest.mark.parametrize(
        "change",
        [
            lambda text: f"  {text}\n",
            lambda text: f"<{text}>",
            lambda text: f"«{text}».",
            lambda text: f"({text}),",
            lambda text: text.replace(CONTACT, "OUTLAST://Contact/"),
            lambda text: "\r\n".join(text[at : at + 76] for at in range(0, len(text), 76)),
            lambda text: "=\r\n".join(text[at : at + 75] for at in range(0, len(text), 75)),
            lambda text: "\u200b".join(text[at : at + 20] for at in range(0, len(text), 20)),
            lambda text: "\u00ad\n \t".join((text[:10], text[10:60], text[60:])),
            lambda text: text + "==",
            lambda text: f"Anna, 17:30:\n{text}\nWrite to me!",
            lambda text: f"mine:{text}, and https://a.example/",
            lambda text: "Here:\n" + "\n".join(text[at : at + 76] for at in range(0, len(text), 76)),
        ],
    )
    def test_what_programs_do_to_it_does_not_matter(self, change: Callable[[str], str]) -> None:
        changed = change(link())
        assert changed != link()
        assert read_link(changed, today=DAY).device == ALICE.device

    def test_cut_short_it_is_refused(self) -> None:
        text = link()
        for size in range(len(text)):
            with pytest.raises(UsageError, match="copy it whole"):
                read_link(text[:size], today=DAY)

    def test_no_character_of_what_it_says_can_be_changed(self) -> None:
        text = link()
        intro_at = len(text) - 24  # the intro secret is signed by nobody: only its length counts
        for at in range(len(CONTACT), intro_at):
            changed = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
            with pytest.raises((UsageError, InviteError)):
                read_link(changed, today=DAY)

    def test_it_expires(self) -> None:
        assert read_link(link(), today=DAY + LINK_LIFE_DAYS).prekey_day == DAY
        with pytest.raises(UsageError, match="expired; ask for a new link"):
            read_link(link(), today=DAY + LINK_LIFE_DAYS + 1)

    def test_a_clock_that_is_behind_does_not_stop_it(self) -> None:
        assert read_link(link(), today=0).device == ALICE.device

    def test_somebody_elses_prekey_is_refused(self) -> None:
        fields = contact_fields()
        fields[4] = sign_prekey(MALLORY.signing, PREKEY, DAY)
        with pytest.raises(InviteError, match="did not sign"):
            read_link(text_of(CONTACT, *fields), today=DAY)

    def test_a_later_day_than_the_signed_one_is_refused(self) -> None:
        fields = contact_fields()
        fields[3] = DAY + 1
        with pytest.raises(InviteError, match="did not sign"):
            read_link(text_of(CONTACT, *fields), today=DAY)

    def test_a_certificate_that_does_not_hold_is_refused(self) -> None:
        fields = contact_fields()
        fields[1] = MALLORY.device.certificate[:-1] + b"\x00"
        with pytest.raises(InviteError, match="not usable"):
            read_link(text_of(CONTACT, *fields), today=DAY)

    @pytest.mark.parametrize("size", [0, 15, 17, 32])
    def test_an_intro_secret_of_another_length_is_refused(self, size: int) -> None:
        with pytest.raises(InviteError, match="keys are not usable"):
            read_link(text_of(CONTACT, *contact_fields()[:5], bytes(size)), today=DAY)

    def test_a_signed_prekey_of_another_length_is_refused(self) -> None:
        fields = contact_fields()
        fields[2] = PREKEY + b"!"
        fields[4] = sign_prekey(ALICE.signing, PREKEY + b"!", DAY)
        with pytest.raises(InviteError, match="keys are not usable"):
            read_link(text_of(CONTACT, *fields), today=DAY)

    def test_a_newer_one_asks_for_a_newer_program(self) -> None:
        for fields in ([2], [2, "more", None], [3, *contact_fields()[1:]]):
            with pytest.raises(UsageError, match="newer Outlast"):
                read_link(text_of(CONTACT, *fields), today=DAY)

    @pytest.mark.parametrize(
        "fields",
        [[], [0], ["1"], [0, *contact_fields()[1:]], [*contact_fields(), 1], contact_fields()[:5]],
    )
    def test_other_contents_are_refused(self, fields: list[object]) -> None:
        with pytest.raises(UsageError, match="copy it whole"):
            read_link(text_of(CONTACT, *fields), today=DAY)

    def test_a_book_is_no_link(self) -> None:
        with pytest.raises(UsageError, match="at most 2000 characters, this has 100018"):
            read_link(CONTACT + "A" * 100_000, today=DAY)


class TestChannelLink:
    @given(st.binary(min_size=32, max_size=32))
    def test_it_says_which_channel_and_its_name(self, space: bytes) -> None:
        text = make_channel_link(space, "  Nexta   Live ")
        assert text.startswith(CHANNEL)
        assert read_channel_link(f"<{text}>\n") == ChannelInvitation(space, "Nexta Live")
        assert parse_channel(f"Read this: {text}!\nToday") == ChannelInvitation(space, "Nexta Live")

    @pytest.mark.parametrize("name", ["", "a\nb\x00", "n" * (NAME_MAX_CHARS + 1)])
    def test_a_bad_name_is_refused_in_both_directions(self, name: str) -> None:
        with pytest.raises(UsageError, match="printable"):
            make_channel_link(SPACE, name)
        with pytest.raises(UsageError, match="printable"):
            read_channel_link(text_of(CHANNEL, 1, SPACE, name))

    @pytest.mark.parametrize("size", [0, 31, 33])
    def test_an_id_of_another_length_is_refused(self, size: int) -> None:
        with pytest.raises(InviteError, match="wrong length"):
            read_channel_link(text_of(CHANNEL, 1, bytes(size), "name"))

    def test_cut_short_it_is_refused(self) -> None:
        text = make_channel_link(SPACE, "Nexta Live")
        for size in range(len(text)):
            with pytest.raises(UsageError, match="copy it whole"):
                read_channel_link(text[:size])


class TestAnyText:
    def test_one_kind_of_link_is_not_taken_for_the_other(self) -> None:
        with pytest.raises(UsageError, match="begins with outlast://contact"):
            read_link(make_channel_link(SPACE, "Nexta Live"), today=DAY)
        with pytest.raises(UsageError, match="begins with outlast://channel"):
            read_channel_link(link())

    @given(st.one_of(st.text(max_size=300), st.binary(max_size=300).map(
        lambda data: base64.urlsafe_b64encode(data).decode()
    )), st.sampled_from(["", CONTACT, CHANNEL]))  # fmt: skip
    def test_it_is_refused_in_one_line(self, text: str, prefix: str) -> None:
        for read in (lambda t: read_link(t, today=DAY), read_channel_link):
            with pytest.raises(OutlastError) as caught:
                read(prefix + text)
            assert isinstance(caught.value, UsageError | InviteError)
            assert str(caught.value).isprintable()
