"""The program that makes pictures anew, so that nothing is left but what one sees.

It runs alone, in a process with little memory and time. Pictures are decoded, turned upright, brought into the common
colours (sRGB) and encoded again: where and when they were made, by which camera, and whatever else was written beside
the picture or behind it, is not in what comes out.
"""

import json
from io import BytesIO
from typing import Any, Final

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF")
PIXELS_MAX: Final = 50_000_000
"""Of a picture, or of all frames of a moving one together."""
PREVIEW_SIDE: Final = 320
SHOWN_SIDE: Final = 1600


def prepare() -> None:
    """Load the decoders and encoders."""
    from PIL import Image, ImageCms, ImageOps, ImageSequence  # noqa: F401

    Image.init()
    ImageCms.createProfile("sRGB")
    for kind in FORMATS:
        encoded(Image.new("RGB", (8, 8)), kind)
    film = BytesIO()
    frames = [Image.new("L", (8, 8), grey) for grey in (0, 255)]
    frames[0].save(film, "GIF", save_all=True, append_images=frames[1:])
    work(film.getvalue(), "send")  # what Pillow loads late is loaded then


def work(data: bytes, purpose: str, preview_bytes: str = "8192") -> bytes:
    """A picture made anew; raises when it is none, or too large.

    For ``send``: a line of JSON (``type``, and ``preview``: how many bytes follow of a small picture), the small
    picture, the picture. For ``preview`` the small picture alone (WebP); for ``show`` one of the size of a screen.
    A small picture has at most ``preview_bytes``.
    """
    from PIL import Image

    with Image.open(BytesIO(data), formats=FORMATS) as image:
        frames = getattr(image, "n_frames", 1) if image.format in ("PNG", "WEBP", "GIF") else 1
        if image.width * image.height * frames > PIXELS_MAX:
            raise ValueError("this picture is too large")
        if purpose != "send":
            side = SHOWN_SIDE if purpose == "show" else 2 * PREVIEW_SIDE
            image.draft("RGB", (side, side))
            still = upright(image)
            if purpose == "preview":
                return small(still, int(preview_bytes))
            still.thumbnail((side, side))
            return encoded(still, "WEBP")
        if frames > 1:
            kind, picture, still = "WEBP", moving(image), upright(image)
        else:
            kind = {"MPO": "JPEG", "GIF": "PNG"}.get(image.format or "", image.format or "")
            still = upright(image)
            picture = encoded(still, kind)
    preview = small(still, int(preview_bytes))
    head = {"type": f"image/{kind.lower()}", "preview": len(preview)}
    return json.dumps(head).encode() + b"\n" + preview + picture


def upright(image: Any) -> Any:
    """The picture as it is to be seen, in sRGB, with nothing beside its pixels."""
    from PIL import Image, ImageCms, ImageOps

    profile = image.info.get("icc_profile")
    turned: Any = ImageOps.exif_transpose(image)
    mode = "RGBA" if turned.has_transparency_data else "RGB"
    if profile and turned.mode in ("RGB", "CMYK", "L"):
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            turned = ImageCms.profileToProfile(turned, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            pass  # a profile that is none: the colours stay as they are
    bare = Image.new(mode, turned.size)
    bare.paste(turned.convert(mode))
    return bare


def moving(image: Any) -> bytes:
    """All frames of a moving picture, encoded anew."""
    from PIL import Image, ImageSequence

    frames, durations = [], []
    for frame in ImageSequence.Iterator(image):
        bare = Image.new("RGBA", image.size)
        bare.paste(frame.convert("RGBA"))
        frames.append(bare)
        durations.append(min(10_000, max(20, int(frame.info.get("duration", 100)))))
    out = BytesIO()
    frames[0].save(
        out, "WEBP", save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=75, method=0
    )
    return out.getvalue()


def small(image: Any, most_bytes: int) -> bytes:
    """A small picture (WebP) of at most so many bytes."""
    side = PREVIEW_SIDE
    while True:
        copy = image.copy()
        copy.thumbnail((side, side))
        for quality in (70, 45, 25):
            out = encoded(copy, "WEBP", quality)
            if len(out) <= most_bytes:
                return out
        side //= 2


def encoded(image: Any, kind: str, quality: int = 90) -> bytes:
    """A picture in a format."""
    out = BytesIO()
    match kind:
        case "JPEG":
            image.convert("RGB").save(out, kind, quality=quality, optimize=True)
        case "WEBP":
            image.save(out, kind, quality=quality, method=2)
        case _:
            image.save(out, kind)
    return out.getvalue()
