"""Pictures that users send: odd ones are read as they look, hostile ones refused before they cost anything."""

from __future__ import annotations

import base64
import io
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from visavis.errors import VisavisError
from visavis.serving.pictures import from_bytes, from_url, scaled

RED_LEFT = np.zeros((20, 30, 3), np.uint8)
RED_LEFT[:, :15, 0] = 255


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header promises many pixels, and whose body is small."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * min(width * height * 3, 10**7))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def url_of(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def test_a_picture_comes_through_unchanged() -> None:
    np.testing.assert_array_equal(from_url(url_of(encoded(Image.fromarray(RED_LEFT), "PNG"))), RED_LEFT)


def test_a_turned_picture_stands_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned = from_bytes(encoded(Image.fromarray(RED_LEFT), "JPEG", exif=exif, quality=95))
    assert turned.shape == (30, 20, 3)
    assert turned[5, 10, 0] > 200 and turned[25, 10, 0] < 50


def test_cmyk_palette_transparency_and_16_bits_look_as_they_should() -> None:
    image = Image.fromarray(RED_LEFT)
    cmyk = from_bytes(encoded(image.convert("CMYK"), "JPEG", quality=95))
    assert abs(cmyk.astype(int) - RED_LEFT).mean() < 12
    np.testing.assert_array_equal(from_bytes(encoded(image.convert("P"), "PNG")), RED_LEFT)
    clear = image.convert("RGBA")
    clear.putalpha(Image.fromarray(np.repeat([[255] * 15 + [0] * 15], 20, axis=0).astype(np.uint8)))
    seen = from_bytes(encoded(clear, "PNG"))
    assert seen[0, 0].tolist() == [255, 0, 0] and seen[0, -1].tolist() == [255] * 3
    deep = Image.fromarray(np.linspace(0, 65_535, 600).reshape(20, 30).astype(np.uint16))
    grey = from_bytes(encoded(deep, "PNG"))
    assert (
        grey.shape == (20, 30, 3)
        and grey[0, 0, 0] == 0
        and 120 < grey[10, 0, 0] < 135
        and grey[-1, -1, 0] == 255
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (png_of_size(10_000, 10_000), "more than 24 megapixels"),
        (png_of_size(2**31 - 1, 2**31 - 1), "megapixels|cannot be decoded"),
        (png_of_size(300, 300)[:-40], "cannot be decoded"),
        (b"", "no PNG, JPEG, WEBP"),
        (b"GIF89a" + b"\0" * 50, "no PNG, JPEG, WEBP"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "no PNG, JPEG, WEBP"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no PNG, JPEG, WEBP"),
        (encoded(Image.fromarray(RED_LEFT), "JPEG")[:200], "cannot be decoded"),
        (
            encoded(
                Image.fromarray(RED_LEFT),
                "PNG",
                save_all=True,
                append_images=[Image.fromarray(255 - RED_LEFT)],
            ),
            "animated",
        ),
        (
            encoded(
                Image.fromarray(RED_LEFT),
                "WEBP",
                save_all=True,
                append_images=[Image.fromarray(255 - RED_LEFT)],
            ),
            "animated",
        ),
    ],
)
def test_hostile_pictures_are_refused_quickly(content: bytes, words: str) -> None:
    tracemalloc.start()
    began = time.monotonic()
    with pytest.raises(VisavisError, match=words):
        from_bytes(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.monotonic() - began < 2 and peak < 50 * 2**20


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "//example.org/a.png",
        "data:text/html;base64,AAAA",
        "data:image/png,plain",
        "data:image/png;base64,not base64!",
        "data:image/png;base64," + "A" * (17 * 2**20),
        "",
    ],
)
def test_addresses_are_never_opened(url: str) -> None:
    with pytest.raises(VisavisError):
        from_url(url)


def test_sizes() -> None:
    assert scaled(RED_LEFT, "auto") is RED_LEFT
    assert scaled(RED_LEFT, "60x40").shape == (40, 60, 3)
