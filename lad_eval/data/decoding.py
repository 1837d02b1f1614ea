"""From the bytes of a picture file to RGB: the only decoder of the package.

Only raster formats are opened, by decoders inside Pillow: a file that another program would have to render (EPS, PDF, WMF) is
refused, so that no program is started. What had to be done to the pixels is a `Treatment`; it belongs to the picture's identity.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile


Treatment = Literal["turned", "flattened", "scaled", "first frame"]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "QOI", "ICO", "PCX", "SGI", "TGA")
"""Pillow's names of what is opened; AVIF and JPEG 2000 where Pillow was built with them."""

MAX_PIXELS = 89_478_485
"""Pixels of one picture: Pillow's own limit, which other packages in the process raise."""

DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError),
    *(ArithmeticError, RuntimeError, struct.error),
)
"""What Pillow's decoders raise over damaged files; it promises no common class (AVIF gives RuntimeError, TIFF TypeError)."""

_ORIENTATION = 0x0112
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
_DEEP = ("I", "F")
_EXIF_TEXTS = (b"Raw profile type exif", b"XML:com.adobe.xmp")
_LFS = (b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/")
_OTHER_KINDS = {
    b"%!PS": "PostScript (EPS)",
    b"\xc5\xd0\xd3\xc6": "PostScript (EPS)",
    b"%PDF": "PDF",
    b"\xd7\xcd\xc6\x9a": "a Windows metafile (WMF)",
    b"\x01\x00\x00\x00\x6c\x00\x00\x00": "a Windows metafile (EMF)",
    b"<svg": "SVG",
    b"<?xml": "XML (SVG)",
}
_LOCK = Lock()


class RefusedError(ValueError):
    """A file that is not decoded, damaged or not; the text continues the file's name."""


@dataclass(frozen=True)
class PictureHeader:
    """What a picture is, before its pixels are decoded.

    Attributes:
        size: width and height in pixels, after turning.
        mode: as Pillow names it.
        treatments: what decoding does, in the order of `Treatment`.
    """

    size: tuple[int, int]
    mode: str
    treatments: tuple[Treatment, ...]


def decode(content: bytes) -> Image:
    """The picture in RGB: its first frame, turned as its EXIF orientation says, deep grey scaled, alpha on white.

    Raises:
        RefusedError: it is not a raster picture, too large, or empty.
        DECODER_ERRORS: it is damaged.
    """
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    with _opened(content) as image:
        _load(image)
        # Pillow turns a TIFF while it loads, and some versions still report the orientation afterwards.
        orientation = 1 if image.format == "TIFF" else _orientation(image)
        rgb = as_rgb(image)
    if orientation in turns:
        rgb = rgb.transpose(turns[orientation])
    # Otherwise a program that saves or opens the result would turn it, or make a colour of it transparent, a second time.
    rgb.info = {}
    return rgb


def inspect(content: bytes) -> PictureHeader:
    """What `decode` will do; the pixels are decoded only where nothing else shows it.

    Raises:
        As `decode`.
    """
    with _opened(content) as image:
        if image.format == "PNG" and _exif_after_pixels(content):
            _load(image)
        orientation = _orientation(image)
        (width, height), mode = _stored_size(image), image.mode
        treatments: dict[Treatment, bool] = {
            "turned": orientation != 1,
            "flattened": _has_alpha(image),
            "scaled": _is_deep(image),
            "first frame": _has_frames(image),
        }
        done = tuple(name for name, needed in treatments.items() if needed)
        return PictureHeader((width, height) if orientation < 5 else (height, width), mode, done)


def as_rgb(image: Image, *, copy: bool = True) -> Image:
    """A picture in memory in RGB: deep grey scaled (`lad_eval.data.decoding`), alpha flattened on white.

    Args:
        image: in any mode.
        copy: False: a picture in RGB is returned itself, loaded.

    Raises:
        RefusedError: none of its values is finite, or Pillow cannot convert it.
    """
    from PIL import Image as Pil

    if _is_deep(image):
        return _deep_as_rgb(image)
    if _has_alpha(image):
        ground = Pil.new("RGBA", image.size, "white")
        ground.alpha_composite(image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA"))
        return ground.convert("RGB")
    if image.mode == "LAB":
        return _lab_as_rgb(image)
    if image.mode == "RGB" and not copy:
        image.load()
        return image
    return image.convert("RGB")


def _deep_as_rgb(image: Image) -> Image:
    import numpy as np
    from PIL import Image as Pil

    tags: Any = getattr(image, "tag_v2", {})
    values = np.asarray(image)
    key = image.info.get("transparency")
    if image.mode == "I" and _first(tags.get(_SAMPLE_FORMAT, 2)) == 1 and _first(tags.get(_BITS, 0)) == 32:
        values = values.view(np.uint32)  # Pillow reads them as signed
    white: float | None = None
    if image.mode.startswith("I;16"):
        white = 2.0 ** min(16, _first(tags.get(_BITS, 16))) - 1
    elif image.mode == "I" and image.format in ("PNG", "PPM"):
        white = 65535.0
    try:
        grey = eight_bits(values, white)
    except ValueError as error:
        raise RefusedError(f": {error}") from None
    if _first(tags.get(_PHOTOMETRIC, 1)) == 0:
        grey = 255 - grey  # the TIFF counts from white; Pillow turns that round for 8 bits only
    if isinstance(key, int):
        grey = np.where(values == key, 255, grey).astype(np.uint8)
    return Pil.fromarray(grey).convert("RGB")


def _lab_as_rgb(image: Image) -> Image:
    try:
        from PIL import ImageCms

        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
    except ImportError:
        raise RefusedError(": it is in L*a*b*, which this Pillow cannot convert; save it in RGB") from None
    assert converted is not None
    return converted


@contextmanager
def _opened(content: bytes) -> Iterator[ImageFile]:
    from PIL import Image as Pil

    _refuse(content)
    try:
        image: Any = Pil.open(io.BytesIO(content), formats=_formats())
    except (Pil.DecompressionBombError, Pil.DecompressionBombWarning):
        raise RefusedError(_TOO_LARGE) from None
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise RefusedError(_TOO_LARGE)
        _scale_key(image)
        yield image


_TOO_LARGE = f": it has more than {MAX_PIXELS:,} pixels, which could fill the memory; make it smaller"


def _refuse(content: bytes) -> None:
    if not content:
        raise RefusedError(": the file is empty")
    if content.startswith(_LFS):
        raise RefusedError(" is a Git LFS pointer, not the picture itself; run `git lfs pull`")
    start = content[:64].lstrip()
    for mark, kind in _OTHER_KINDS.items():
        if content.startswith(mark) or start.startswith(mark):
            raise RefusedError(f" is {kind}, not a raster picture; save it as PNG or JPEG")


@cache
def _formats() -> tuple[str, ...]:
    from PIL import Image as Pil

    Pil.init()
    return tuple(name for name in FORMATS if name in Pil.OPEN)


def _load(image: ImageFile) -> None:
    """Decodes; a truncated file is an error even where another package in the process has set Pillow to fill it up."""
    from PIL import ImageFile as Files

    if not Files.LOAD_TRUNCATED_IMAGES:
        image.load()
        return
    with _LOCK:
        Files.LOAD_TRUNCATED_IMAGES = False
        try:
            image.load()
        finally:
            Files.LOAD_TRUNCATED_IMAGES = True


def _orientation(image: ImageFile) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none, or none that can be read."""
    from PIL import Image as Pil

    try:
        # Not the method of PNG's own class, which decodes the whole picture.
        value = Pil.Image.getexif(image).get(_ORIENTATION, 1)
    except DECODER_ERRORS:
        return 1
    return int(value) if value in range(1, 9) else 1


def _exif_after_pixels(png: bytes) -> bool:
    """Whether a PNG says how it is to be turned only after its pixels."""
    position, pixels = 8, False
    while position + 8 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, position)
        if pixels and (kind == b"eXIf" or (kind in (b"tEXt", b"zTXt", b"iTXt") and png.startswith(_EXIF_TEXTS, position + 8))):
            return True
        pixels = pixels or kind == b"IDAT"
        position += length + 12
    return False


def _stored_size(image: ImageFile) -> tuple[int, int]:
    """Width and height before turning; some versions of Pillow report those of a TIFF after turning."""
    tags: Any = getattr(image, "tag_v2", None) if image.format == "TIFF" else None
    return image.size if tags is None else (int(tags[256]), int(tags[257]))


def _scale_key(image: ImageFile) -> None:
    """Puts the transparent grey or colour of a PNG on the scale of its pixels, which Pillow has made 8 bits."""
    key: Any = image.info.get("transparency")
    if key is None or image.format != "PNG" or not image.tile:
        return
    depth = str(image.tile[0][3])
    if depth in ("L;2", "L;4") and isinstance(key, int):
        image.info["transparency"] = key * (85 if depth == "L;2" else 17)
    elif depth.startswith("RGB;16") and isinstance(key, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in key)


def _has_alpha(image: Image) -> bool:
    palette = getattr(image, "palette", None)
    return image.mode in _ALPHA or "transparency" in image.info or (image.mode == "P" and getattr(palette, "mode", "") == "RGBA")


def _is_deep(image: Image) -> bool:
    return image.mode in _DEEP or image.mode.startswith("I;16")


def _has_frames(image: ImageFile) -> bool:
    if image.format == "MPO":
        return False  # the further pictures of a JPEG are previews, depth or gain maps of the first
    try:
        return bool(getattr(image, "is_animated", False))
    except DECODER_ERRORS:
        return False  # there is no second frame that can be read


def _first(value: Any) -> int:
    return int(value[0] if isinstance(value, tuple) else value)


_WHITES = (1.0, 2.0**8 - 1, 2.0**16 - 1, 2.0**31 - 1, 2.0**32 - 1)
_DARKEST = 1 / 16
"""Share of a customary white that the brightest value must reach, or the picture is not on that scale."""


def eight_bits(values: npt.NDArray[Any], white: float | None = None) -> npt.NDArray[np.uint8]:
    """Grey values, scaled linearly and rounded; the same range for every value of the picture.

    Black and white are those of the file where it says so (16 bits: 0 and 65535). 32-bit integers and floats do not say; there 0
    is black, and white is the least of 1 (floats only), 2**8 - 1, 2**16 - 1, 2**31 - 1 and 2**32 - 1 that holds all values, if
    the brightest is more than a sixteenth of it. Else the picture's least value is black and its greatest is white.

    NaN is not a measurement and becomes white, as a transparent pixel does; infinities become black and white. A picture of one
    value outside of every customary range is mid-grey, since its brightness is unknown.

    Args:
        values: [H, W], integers or floats.
        white: the value that the file declares as white; black is 0 then.

    Returns:
        UInt8[H, W].

    Raises:
        ValueError: no value is finite.
    """
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError("none of its values is finite")
    if white is None:
        least = float(values.min(where=finite, initial=values[finite][0]))
        greatest = float(values.max(where=finite, initial=values[finite][0]))
        low, high = _range(least, greatest, np.issubdtype(values.dtype, np.floating))
    else:
        low, high = 0.0, white
    scaled = np.empty(values.shape, np.uint8)
    for row, line in enumerate(values):  # row by row, since doubles of a whole large picture are several GB
        exact = line.astype(np.float64)
        share = (exact - low) / (high - low) if high > low else np.where(exact == low, 0.5, exact - low)
        scaled[row] = np.floor(np.nan_to_num(np.clip(share, 0.0, 1.0), nan=1.0) * 255 + 0.5)
    return scaled


def _range(least: float, greatest: float, floating: bool) -> tuple[float, float]:
    """What is black and what is white."""
    whites = _WHITES if floating else _WHITES[1:]
    if least >= 0:
        for white in whites:
            if greatest <= white and (white == whites[0] or greatest > white * _DARKEST):
                return 0.0, white
    return least, greatest
