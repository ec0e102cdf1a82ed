"""Pictures from users, who may send anything, and pictures to users."""

from __future__ import annotations

import base64
import binascii
import io
import re

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from visavis.errors import VisavisError

Picture = NDArray[np.uint8]
FORMATS = ("PNG", "JPEG", "WEBP")
MOST_BYTES = 12 * 2**20
MOST_PIXELS = 24_000_000
_DATA_URL = re.compile(r"data:image/[a-z0-9.+-]{1,32};base64,", re.IGNORECASE)
_HINT = f"send a {', '.join(FORMATS)} picture of at most {MOST_PIXELS // 10**6} megapixels"


def from_url(url: str) -> Picture:
    """Decodes a data URL; no other address is ever opened.

    Raises:
        VisavisError: If it is not one, or holds no picture that may be read.
    """
    head = _DATA_URL.match(url)
    if head is None:
        raise VisavisError(
            f"image_url is {url[:40]!r}, not a data URL",
            fix="send the picture itself, as data:image/png;base64,…; this service fetches nothing",
        )
    if len(url) - head.end() > MOST_BYTES * 4 // 3 + 4:
        raise VisavisError(f"image_url has more than {MOST_BYTES // 2**20} MiB", fix="send a smaller picture")
    try:
        content = base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise VisavisError("image_url is not valid base64", fix="encode the file's bytes anew") from None
    return from_bytes(content)


def from_bytes(content: bytes) -> Picture:
    """Decodes a picture to RGB `[H, W, 3]`, upright; transparent parts become white.

    Size and format are judged by the header, before anything is decoded.

    Raises:
        VisavisError: If it is no picture of a format that is read, too large, moving, or broken.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise VisavisError(
                    f"the picture has {image.width} × {image.height} pixels, more than"
                    f" {MOST_PIXELS // 10**6} megapixels",
                    fix="send a smaller picture",
                )
            if getattr(image, "is_animated", False):
                raise VisavisError("the picture is animated", fix="send one frame of it")
            upright = ImageOps.exif_transpose(image)
            return np.asarray(_rgb(upright))
    except VisavisError:
        raise
    except UnidentifiedImageError:
        raise VisavisError(f"the file is no {', '.join(FORMATS)} picture", fix=_HINT) from None
    except Exception as error:  # Pillow raises whatever a broken file makes its codecs raise
        raise VisavisError(f"the picture cannot be decoded: {type(error).__name__}", fix=_HINT) from None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits of grey, which Pillow would clip
        levels = np.asarray(image, dtype=np.float32)
        image = Image.fromarray((levels / max(float(levels.max()), 65_535.0) * 255).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(white, layered).convert("RGB")
    return image.convert("RGB")


def scaled(picture: Picture, size: str) -> Picture:
    """Enlarges or shrinks a picture to `auto` (as painted) or `WIDTHxHEIGHT`."""
    if size == "auto":
        return picture
    width, height = (int(number) for number in size.split("x"))
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))


def to_url(png: bytes) -> str:
    """Returns a PNG file as data URL."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
