"""QR codes are read from the photos that phones send, and from nothing else."""

from __future__ import annotations

import asyncio
from io import BytesIO

import pytest
import segno
from PIL import Image

from outlast.errors import UsageError
from outlast.ui.photo import read_qr


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
