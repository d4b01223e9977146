"""QR codes out of photos, decoded in a child process with little memory and time, far from any key.

Phones reach the node over plain http, where browsers give no camera; they send a photo instead. Image decoders have a
long history of holes, so no photo is decoded in the process that holds the keys.
"""

import asyncio
import resource
import sys
from contextlib import suppress
from typing import Final

from outlast.errors import UsageError

MEMORY_BYTES: Final = 1 << 30
CPU_S: Final = 10
PIXELS_MAX: Final = 60_000_000
SIDE_MAX: Final = 2400
TEXT_MAX: Final = 4000


async def read_qr(photo: bytes) -> str:
    """The text of the QR code in a JPEG, PNG or WebP photo; empty when there is none.

    Raises UsageError when this is no photo, or one that decoding within bounds is not possible for.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-m",
        __name__,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={},
        cwd="/",
    )
    try:
        async with asyncio.timeout(2 * CPU_S):
            out, _err = await child.communicate(photo)
    except TimeoutError:
        out = b""
    finally:
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()
    if child.returncode != 0:
        raise UsageError("this photo cannot be read: send a JPEG or PNG, as the camera makes them")
    return out.decode()[:TEXT_MAX]


def confine() -> None:
    """Bound what this process may take, whatever the photo makes it do: memory, time, files, processes."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def decode(photo: bytes) -> str:
    """The text of the first QR code in a photo; raises when it is none."""
    from io import BytesIO

    import zxingcpp
    from PIL import Image

    Image.init()
    # All decoders are loaded: from here on no file needs to be opened.
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    with Image.open(BytesIO(photo), formats=("JPEG", "PNG", "WEBP")) as image:
        if image.width * image.height > PIXELS_MAX:
            raise UsageError("this photo is too large")
        image.draft("L", (SIDE_MAX, SIDE_MAX))
        grey = image.convert("L")
    grey.thumbnail((SIDE_MAX, SIDE_MAX))
    found = zxingcpp.read_barcodes(grey, formats=zxingcpp.BarcodeFormats(zxingcpp.BarcodeFormat.QRCode))
    return next((code.text for code in found), "")


if __name__ == "__main__":
    confine()
    sys.stdout.buffer.write(decode(sys.stdin.buffer.read()).encode())
