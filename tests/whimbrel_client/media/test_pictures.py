"""Small pictures: of what is an image, whatever its name; from others only if they are small."""

import io
from pathlib import Path

import pytest
from PIL import Image

from whimbrel.content.v1 import content_pb2
from whimbrel_client.media.files import _media_of
from whimbrel_client.media.pictures import picture_of, thumbnail_in


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
def test_an_image_of_any_common_kind_has_a_small_picture(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "image.anything"
    Image.effect_noise((3000, 900), 80).convert("RGB").save(path, kind)

    picture = picture_of(path)

    assert picture is not None
    assert (picture.width, picture.height) == (3000, 900)
    assert picture.mime_type == f"image/{kind.lower()}"
    assert 0 < len(picture.thumbnail) <= 8192
    small = thumbnail_in(picture.thumbnail)
    assert small is not None
    assert max(small.size) <= 96


def test_where_a_picture_was_taken_does_not_go_along(tmp_path: Path) -> None:
    path, exif = tmp_path / "a.jpg", Image.Exif()
    exif[0x010E] = "at home"
    exif[0x0112] = 6  # lies on its side
    Image.new("RGB", (400, 200), "red").save(path, exif=exif)

    picture = picture_of(path)

    assert picture is not None
    assert b"at home" not in picture.thumbnail
    small = thumbnail_in(picture.thumbnail)
    assert small is not None
    assert small.height > small.width


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x89PNG\r\n\x1a\n" + bytes(50)])
def test_a_lying_content_type_is_not_believed(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "shore.png"
    path.write_bytes(content)

    media = _media_of(path)

    assert picture_of(path) is None
    assert (media.kind, media.thumbnail) == (content_pb2.MEDIA_KIND_DOCUMENT, b"")
    assert media.mime_type == "application/octet-stream"


def _jpeg(size: tuple[int, int]) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size).save(out, "JPEG")
    return out.getvalue()


def _png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    "told",
    [b"", b"no picture", _jpeg((9, 9))[:100], _png(), _jpeg((1000, 10)), bytes(8193)],
    ids=["empty", "words", "cut", "another kind", "too wide", "too long"],
)
def test_somebodys_small_picture_is_shown_only_if_it_is_one(told: bytes) -> None:
    assert thumbnail_in(told) is None
