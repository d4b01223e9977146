"""Kinds bound what a body may be, in both directions."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.errors import UsageError
from outlast.kernel.entry import CONTENT_MAX_BYTES, KIND_MAX_BYTES
from outlast.kernel.kinds import Kind, KindError, Kinds


class Post(msgspec.Struct, array_like=True, frozen=True):
    text: str
    number: int = 0


class Other(msgspec.Struct, array_like=True, frozen=True):
    text: str


POST = Kind("test.post", Post, max_bytes=100)


@given(st.text(max_size=20), st.integers(0, 2**63))
def test_a_body_comes_back_from_its_payload(text: str, number: int) -> None:
    post = Post(text, number)
    assert POST.decode(POST.encode(post)) == post


def test_the_limit_is_the_same_in_both_directions() -> None:
    fits = Post("a" * (100 - 4))
    payload = POST.encode(fits)
    assert len(payload) == 100
    assert POST.decode(payload) == fits
    with pytest.raises(KindError, match="at most 100 bytes, this has 101"):
        POST.encode(Post("a" * (100 - 3)))
    with pytest.raises(KindError, match="at most 100 bytes, this has 101"):
        POST.decode(msgspec.msgpack.encode(Post("a" * (100 - 3))))


@pytest.mark.parametrize("body", [Other("a"), POST])
def test_a_body_of_another_type_is_refused(body: msgspec.Struct) -> None:
    with pytest.raises(KindError, match="takes a Post"):
        POST.encode(body)


@given(st.binary(max_size=100))
def test_hostile_bytes_are_refused_with_one_kind_of_error(payload: bytes) -> None:
    with suppress(KindError):
        assert isinstance(POST.decode(payload), Post)


@pytest.mark.parametrize("payload", [b"", b"\x91\xa1\xff", b"\x91" * 90, b"\x92\xa0\xa0", b"\x80"])
def test_what_is_no_body_is_refused(payload: bytes) -> None:
    with pytest.raises(KindError, match=r"test\.post is malformed"):
        POST.decode(payload)


@pytest.mark.parametrize(
    ("name", "max_bytes"),
    [("", 1), ("a" * (KIND_MAX_BYTES + 1), 1), ("a", CONTENT_MAX_BYTES + 1)],
)
def test_no_kind_has_a_name_or_size_that_no_entry_can_have(name: str, max_bytes: int) -> None:
    with pytest.raises(UsageError, match="impossible"):
        Kind(name, Post, max_bytes)


def test_rooms_may_share_a_kind_only_with_one_body() -> None:
    again = Kind("test.post", Post, max_bytes=50)
    assert Kinds([POST, again]).get("test.post") is POST
    with pytest.raises(UsageError, match=r"'test\.post' different bodies"):
        Kinds([POST, Kind("test.post", Other, max_bytes=100)])


def test_an_unknown_kind_is_no_error() -> None:
    assert Kinds([POST]).get("watch.outage") is None
