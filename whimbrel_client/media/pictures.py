"""Small pictures of images, which go inside the message; what is no image has none."""

import io
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageOps

_EDGE = 96
_MOST_BYTES = 8 * 1024
_MOST_PIXELS = 100_000_000
_QUALITIES = (70, 50, 30, 10)


@dataclass(frozen=True, slots=True)
class Picture:
    """What is told of an image before it is there."""

    mime_type: str
    width: int
    height: int
    thumbnail: bytes = field(repr=False)  # JPEG, at most 8 KiB; empty: none was small enough


def picture_of(path: Path) -> Picture | None:
    """Look at the file's bytes, not at its name; None: it is no image that can be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with Image.open(path) as image:
                return _picture(image)
    except (OSError, ValueError, SyntaxError, Warning, Image.DecompressionBombError):
        return None


def thumbnail_in(jpeg: bytes) -> Image.Image | None:
    """The small picture of somebody's message; None: it is not what it should be."""
    if len(jpeg) > _MOST_BYTES:
        return None
    try:
        with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as image:
            if max(image.size) > 4 * _EDGE:
                return None
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def pixels_of(image: Image.Image) -> list[tuple[int, int, int]]:
    """Red, green and blue of each pixel, row by row."""
    rgb = image.tobytes()
    return list(zip(rgb[::3], rgb[1::3], rgb[2::3], strict=True))


def _picture(image: Image.Image) -> Picture | None:
    if image.width * image.height > _MOST_PIXELS or image.format is None:
        return None
    mime_type = Image.MIME.get(image.format, "application/octet-stream")
    width, height = image.size
    # A JPEG is decoded only as far as that takes; other formats ignore it.
    image.draft("RGB", (2 * _EDGE, 2 * _EDGE))
    upright = ImageOps.exif_transpose(image)
    upright.thumbnail((_EDGE, _EDGE))
    # Nothing of the original's metadata, such as where it was taken, goes along.
    return Picture(mime_type, width, height, _jpeg(upright.convert("RGB")))


def _jpeg(image: Image.Image) -> bytes:
    for quality in _QUALITIES:
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality, optimize=True)
        if out.tell() <= _MOST_BYTES:
            return out.getvalue()
    return b""
