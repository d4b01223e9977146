"""The process that decodes photos can do little else, and ends when a photo asks too much of it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
import segno
from PIL import Image

from outlast.errors import UsageError
from outlast.ui.photo import MEMORY_BYTES, read_qr


def confined(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process that confined itself as the decoder does."""
    program = f"from outlast.ui.photo import confine; confine(); {code}"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)


def test_the_decoder_s_process_can_take_little_memory() -> None:
    assert confined("bytes(1000)").returncode == 0
    assert "MemoryError" in confined(f"bytes({MEMORY_BYTES})").stderr


def test_the_decoder_s_process_can_write_no_file(tmp_path: Path) -> None:
    assert confined(f"open({str(tmp_path / 'x')!r}, 'wb').write(b'x' * 10_000)").returncode != 0
    assert (tmp_path / "x").read_bytes() == b""


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("text", ["outlast://contact/abc", "посмотри 🙂"])
def test_a_code_is_read_from_what_phones_send(kind: str, text: str) -> None:
    png, photo = BytesIO(), BytesIO()
    segno.make_qr(text).save(png, kind="png", scale=8)
    with Image.open(png) as image:
        image.convert("RGB").rotate(90).save(photo, kind)
    assert asyncio.run(read_qr(photo.getvalue())) == text


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "PPM", "ICO", "GIF"])
def test_a_format_that_no_camera_makes_is_not_decoded(kind: str) -> None:
    photo = BytesIO()
    Image.new("RGB", (64, 64)).save(photo, kind)
    with pytest.raises(UsageError, match="cannot be read"):
        asyncio.run(read_qr(photo.getvalue()))
