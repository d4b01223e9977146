"""What carry says: letters between people, and what stands in channels; with the rules of their text.

Letters: ``carry.text``, ``carry.file``, ``carry.heard`` (which texts of theirs in groups have arrived). In channels:
``post`` (short, since each post bears it), ``carry.shared`` (a post that is a file) and ``carry.content`` (its bytes),
``carry.hide`` (its author or the channel's owner takes a post away) and ``carry.device`` (an owner's further device,
for instance after a restore). In groups, which are closed spaces, ``post`` and ``carry.hide`` say the same,
sealed, and ``carry.file`` as in letters; who leads a group may take any text away. Bodies are msgpack arrays.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

import msgspec

from outlast.errors import ProtocolError, UsageError
from outlast.kernel import (
    CONTENT_MAX_BYTES,
    DAY_MS,
    FILE_MAX_BYTES,
    JOINERS,
    LETTER_MAX_BYTES,
    Kind,
    counts_of,
    spelled,
)

NAME_MAX_BYTES: Final = 200
SUFFIX_MAX_CHARS: Final = 16
UNNAMED: Final = "file"
KEY_BYTES: Final = 32
ID_BYTES: Final = 32
PREVIEW_MAX_BYTES: Final = 8 * 1024
"""Largest small picture of a file,"""
GROUP_PREVIEW_MAX_BYTES: Final = 3400
"""and in a group: what names it must travel by mail, too, as texts do (see ``GROUP_TEXT_MAX_BYTES``)."""
TYPE_FORM: Final = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}").fullmatch
LETTER_TEXT_MAX_BYTES: Final = LETTER_MAX_BYTES - 64
"""Largest text of a letter in UTF-8; the rest is for its frame."""
POST_TEXT_MAX_BYTES: Final = 4000
GROUP_TEXT_MAX_BYTES: Final = 3900
"""Largest text in a group: a sealed entry of the class 4 KiB is the largest that travels by mail too."""
HEARD_MAX: Final = 200
"""Texts that one letter acknowledges."""
POST_LIFE_DAYS: Final = 30
POST_LIFE_MS: Final = POST_LIFE_DAYS * DAY_MS
OUTLIVING_DAYS: Final = 2 * POST_LIFE_DAYS
"""What ends or certifies a post must not be gone before it."""
OUTLIVING_MS: Final = OUTLIVING_DAYS * DAY_MS


class Text(msgspec.Struct, array_like=True, frozen=True):
    """A letter's text, and the letter (16 B) that it answers."""

    text: str
    reply_to: bytes | None = None


class Post(msgspec.Struct, array_like=True, frozen=True):
    """A post's text, and the post (32 B) that it answers; it is shown for ``life_ms``, 0: as long as posts are."""

    text: str
    reply_to: bytes | None = None
    life_ms: int = 0


class Hide(msgspec.Struct, array_like=True, frozen=True):
    """A post (32 B) that is no longer to be shown."""

    post: bytes


class Heard(msgspec.Struct, array_like=True, frozen=True):
    """Texts (32 B each) of groups, written by the receiver of this letter, that have arrived at its sender."""

    texts: tuple[bytes, ...]


class ChannelDevice(msgspec.Struct, array_like=True, frozen=True):
    """The certificate of a device that speaks in the channel for its identity."""

    certificate: bytes


class File(msgspec.Struct, array_like=True, frozen=True):
    """A file that travels apart, in parcels: what it is called, and by what it is found and opened.

    ``preview`` is a small picture of it (WebP or JPEG), which travels with the letter; ``life_ms`` as for a post, in
    letters always 0, since these say it themselves.
    """

    name: str
    type: str  # as of RFC 6838, such as "image/webp"; empty where it is not known
    size_bytes: int
    key: bytes  # 32 B
    parcels: tuple[bytes, ...]  # ids, 32 B each
    preview: bytes = b""
    life_ms: int = 0


class Shared(msgspec.Struct, array_like=True, frozen=True):
    """A file in a channel, for everybody: its bytes are the content of another entry there.

    ``preview`` is a small picture of it (WebP or JPEG), which travels with the post; ``life_ms`` as for a post.
    """

    name: str
    type: str  # as of RFC 6838; empty where it is not known
    size_bytes: int
    content: bytes  # 32 B, the id of the entry
    preview: bytes = b""
    life_ms: int = 0


TEXT: Final = Kind("carry.text", Text, max_bytes=LETTER_MAX_BYTES)
HEARD: Final = Kind("carry.heard", Heard, max_bytes=34 * HEARD_MAX + 8, acknowledged=False)
POST: Final = Kind("post", Post, max_bytes=POST_TEXT_MAX_BYTES + 64, max_life_days=POST_LIFE_DAYS)
HIDE: Final = Kind("carry.hide", Hide, max_bytes=64, max_life_days=OUTLIVING_DAYS)
DEVICE: Final = Kind("carry.device", ChannelDevice, max_bytes=1024, max_life_days=OUTLIVING_DAYS)

FILE: Final = Kind("carry.file", File, max_bytes=LETTER_MAX_BYTES, max_life_days=POST_LIFE_DAYS, acknowledged=False)

SHARED: Final = Kind("carry.shared", Shared, max_bytes=PREVIEW_MAX_BYTES + 1024, max_life_days=POST_LIFE_DAYS)
CONTENT: Final = Kind("carry.content", None, max_bytes=CONTENT_MAX_BYTES, max_life_days=POST_LIFE_DAYS, priority=7)

LETTERS: Final = (TEXT, FILE, HEARD)
KINDS: Final = (POST, HIDE, DEVICE, FILE, SHARED, CONTENT)


def shown_until(at_ms: int, life_ms: int) -> int | None:
    """When what was said at ``at_ms`` disappears; None when it does not before all posts do."""
    return at_ms + life_ms if 0 < life_ms < POST_LIFE_MS else None


def clean(text: str) -> str:
    """Text as it is kept and shown: without control characters, composed (Unicode NFC), trimmed; lines stay lines.

    Bidirectional controls stay, since people write with them; pages and tables isolate each text.
    """
    if text.isascii() and text.isprintable():
        return text.strip()
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n")
    kept = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs"))
    return unicodedata.normalize("NFC", kept).strip()


def is_blank(text: str) -> bool:
    """Whether a text shows nothing: only spaces and invisible characters."""
    return all(c.isspace() or unicodedata.category(c) == "Cf" for c in spelled(text))


def file_name(name: str) -> str:
    """A file's name as it is kept and shown: one line, without folders, without what steers a terminal or hides."""
    name = name.replace("\\", "/").rpartition("/")[2]
    kept = "".join(c for c in clean(name) if unicodedata.category(c) not in ("Cf", "Cc", "Zl", "Zp") or c in JOINERS)
    kept = kept.strip(f" .{JOINERS}")
    while len(kept.encode()) > NAME_MAX_BYTES:
        stem, dot, suffix = kept.rpartition(".")
        kept = stem[:-1] + dot + suffix if stem and len(suffix) <= SUFFIX_MAX_CHARS else kept[:-1]
    return kept or UNNAMED


def read_file(body: bytes) -> File | None:
    """The file that a letter names; None when it is malformed, or its parts do not fit its size."""
    try:
        found: File = FILE.decode(body)
    except ProtocolError:
        return None
    sound = (
        0 <= found.size_bytes <= FILE_MAX_BYTES
        and len(found.key) == KEY_BYTES
        and len(found.parcels) == len(set(found.parcels)) == len(counts_of(found.size_bytes))
        and all(len(id) == ID_BYTES for id in found.parcels)
        and len(found.preview) <= PREVIEW_MAX_BYTES
    )
    type_ = found.type if TYPE_FORM(found.type) else ""
    return msgspec.structs.replace(found, name=file_name(found.name), type=type_) if sound else None


def read_shared(payload: bytes) -> Shared | None:
    """The file that a post is; None when it is malformed."""
    try:
        found: Shared = SHARED.decode(payload)
    except ProtocolError:
        return None
    sound = (
        0 <= found.size_bytes <= CONTENT_MAX_BYTES
        and len(found.content) == ID_BYTES
        and len(found.preview) <= PREVIEW_MAX_BYTES
    )
    type_ = found.type if TYPE_FORM(found.type) else ""
    return msgspec.structs.replace(found, name=file_name(found.name), type=type_) if sound else None


def letter_text(text: str) -> str:
    """The text of a letter, cleaned; raises UsageError when it is empty or too long."""
    return _checked(text, LETTER_TEXT_MAX_BYTES)


def post_text(text: str) -> str:
    """The text of a post, cleaned; raises UsageError when it is empty or too long."""
    return _checked(text, POST_TEXT_MAX_BYTES)


def group_text(text: str) -> str:
    """A text for a group, cleaned; raises UsageError when it is empty or too long."""
    return _checked(text, GROUP_TEXT_MAX_BYTES)


def _checked(text: str, max_bytes: int) -> str:
    text = clean(text)
    if is_blank(text):
        raise UsageError("this is empty: write something first")
    size = len(text.encode())
    if size > max_bytes:
        raise UsageError(
            "this has %(size)s bytes, and at most %(most)s are allowed: make it shorter, or send it in parts",
            size=size,
            most=max_bytes,
        )
    return text
