"""QR codes out of photos, decoded in a process with little memory and time (``limited``).

Over plain http browsers give pages no camera: a photo is sent. On localhost and over https a page may send what the
camera sees, a frame after another, by the same form.
"""

from pathlib import Path
from typing import Final

from outlast.errors import UsageError
from outlast.ui import limited

PROGRAM: Final = Path(__file__).with_name("read_code.py")
TEXT_MAX: Final = 4000


async def read_qr(photo: bytes) -> str:
    """The text of the QR code in a JPEG, PNG or WebP photo; empty when there is none.

    Raises UsageError when this is no photo, or one that decoding within bounds is not possible for.
    """
    text = await limited.run(PROGRAM, photo)
    if text is None:
        raise UsageError("this photo cannot be read: send a JPEG or PNG, as the camera makes them")
    return text.decode()[:TEXT_MAX]
