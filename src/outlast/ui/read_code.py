"""The program that reads a QR code out of a photo. It runs alone, in a process with little memory and time."""

from io import BytesIO
from typing import Final

PIXELS_MAX: Final = 60_000_000
SIDE_MAX: Final = 2400


def prepare() -> None:
    """Load the decoders."""
    import zxingcpp  # noqa: F401
    from PIL import Image

    Image.init()


def work(photo: bytes) -> bytes:
    """The text of the first QR code in a photo, in UTF-8; raises when it is no photo."""
    import zxingcpp
    from PIL import Image

    with Image.open(BytesIO(photo), formats=("JPEG", "PNG", "WEBP")) as image:
        if image.width * image.height > PIXELS_MAX:
            raise ValueError("this photo is too large")
        image.draft("L", (SIDE_MAX, SIDE_MAX))
        grey = image.convert("L")
    grey.thumbnail((SIDE_MAX, SIDE_MAX))
    found = zxingcpp.read_barcodes(grey, formats=zxingcpp.BarcodeFormats(zxingcpp.BarcodeFormat.QRCode))
    return next((code.text for code in found), "").encode()
