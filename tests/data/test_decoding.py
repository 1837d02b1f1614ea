"""The one decoder: right values by hand for every mode that Pillow can open, and the files that it refuses."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageFile, features

from lad_eval.data import decoding
from lad_eval.data.decoding import RefusedError, as_rgb, decode, inspect
from tests.data.picture_files import EPS, LFS_POINTER, png, tiff

WHITE = (255, 255, 255)


def saved(image, form, **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def pixels(content):
    """Rows of (r, g, b)."""
    picture = decode(content)
    assert (picture.mode, picture.info) == ("RGB", {})
    return [[tuple(pixel) for pixel in row] for row in np.asarray(picture).tolist()]


def greys(content):
    """One row of grey values."""
    [row] = pixels(content)
    assert all(len(set(pixel)) == 1 for pixel in row)
    return [pixel[0] for pixel in row]


def two(mode, first, second):
    """A picture of two pixels."""
    image = Image.new(mode, (2, 1), first)
    image.putpixel((1, 0), second)
    return image


def palette(*colours):
    image = Image.new("P", (len(colours), 1))
    image.putpalette([value for colour in colours for value in colour])
    for index in range(len(colours)):
        image.putpixel((index, 0), index)
    return image


def palette_with_alpha():
    image = Image.new("PA", (2, 1), (0, 255))
    image.putpalette([10, 20, 30, 0, 0, 0])
    image.putpixel((1, 0), (1, 0))
    return image


KEY = b"tRNS"
# Every way to be transparent. The second pixel always is, with black or a colour under it; the first is (10, 20, 30), or 10.
TRANSPARENT = {
    "RGBA": (saved(two("RGBA", (10, 20, 30, 255), (0, 0, 0, 0)), "PNG"), (10, 20, 30)),
    "RGBA, TIFF": (saved(two("RGBA", (10, 20, 30, 255), (9, 9, 9, 0)), "TIFF"), (10, 20, 30)),
    "RGBA, WebP": (saved(two("RGBA", (10, 20, 30, 255), (0, 0, 0, 0)), "WEBP", lossless=True, exact=True), (10, 20, 30)),
    "LA": (saved(two("LA", (10, 255), (0, 0)), "PNG"), (10, 10, 10)),
    "palette, a byte a colour": (saved(palette((10, 20, 30), (0, 0, 0)), "PNG", transparency=b"\xff\x00"), (10, 20, 30)),
    "palette, one colour": (saved(palette((10, 20, 30), (0, 0, 0)), "PNG", transparency=1), (10, 20, 30)),
    "palette with alpha, TIFF": (saved(palette_with_alpha(), "TIFF"), (10, 20, 30)),
    "GIF": (saved(palette((10, 20, 30), (0, 0, 0)), "GIF", transparency=1), (10, 20, 30)),
    "RGB with a key": (
        png(2, 1, 8, 2, [bytes([10, 20, 30, 4, 5, 6])], [(KEY, struct.pack(">3H", 4, 5, 6))]),
        (10, 20, 30),
    ),
    "RGB of 16 bits with a key": (
        png(2, 1, 16, 2, [struct.pack(">6H", 2570, 5140, 7710, 999, 888, 777)], [(KEY, struct.pack(">3H", 999, 888, 777))]),
        (10, 20, 30),
    ),
    "grey with a key": (png(2, 1, 8, 0, [bytes([10, 200])], [(KEY, struct.pack(">H", 200))]), (10, 10, 10)),
    "grey of 4 bits with a key": (png(2, 1, 4, 0, [b"\x23"], [(KEY, struct.pack(">H", 3))]), (34, 34, 34)),
    "grey of 2 bits with a key": (png(2, 1, 2, 0, [b"\x60"], [(KEY, struct.pack(">H", 2))]), (85, 85, 85)),
    "1 bit with a key": (png(2, 1, 1, 0, [b"\x80"], [(KEY, struct.pack(">H", 0))]), WHITE),
    "grey of 16 bits with a key": (
        png(2, 1, 16, 0, [struct.pack(">2H", 2570, 999)], [(KEY, struct.pack(">H", 999))]),
        (10, 10, 10),
    ),
    "grey and alpha of 16 bits": (png(2, 1, 16, 4, [struct.pack(">4H", 2570, 65535, 0, 0)]), (10, 10, 10)),
}


@pytest.mark.parametrize("kind", TRANSPARENT)
def test_what_is_transparent_becomes_white(kind):
    content, first = TRANSPARENT[kind]
    assert pixels(content) == [[first, WHITE]]
    expected = ("flattened", "scaled") if kind == "grey of 16 bits with a key" else ("flattened",)
    assert inspect(content).treatments == expected


def test_half_transparent_pixels_are_mixed_with_white():
    # 0 * 128/255 + 255 * 127/255 = 127; 200 * 128/255 + 127 = 227.4.
    assert pixels(saved(two("RGBA", (0, 0, 0, 128), (200, 0, 0, 128)), "PNG")) == [[(127, 127, 127), (227, 127, 127)]]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGBa", "La"])
def test_every_mode_with_alpha_is_flattened_in_memory_too(mode):
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((0, 0), (40, 40, 40, 255))
    image = image.convert("LA").convert(mode) if mode == "La" else image.convert(mode)
    assert np.asarray(as_rgb(image)).tolist() == [[[40, 40, 40], [255, 255, 255]]]


def test_a_drawing_on_a_transparent_ground_has_the_mean_of_the_drawing_on_white():
    drawing = Image.new("RGBA", (100, 100), (0, 0, 0, 0))
    drawing.paste((20, 190, 210, 255), (0, 0, 25, 28))  # 7 % of the pixels
    mean = np.asarray(decode(saved(drawing, "PNG"))).mean()
    assert mean == pytest.approx(0.93 * 255 + 0.07 * (20 + 190 + 210) / 3, abs=1e-9)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (saved(Image.fromarray(np.array([[0, 257, 32768, 65535]], np.uint16)), "PNG"), [0, 1, 128, 255]),
        (saved(Image.fromarray(np.array([[0, 257, 32768, 65535]], np.uint16)), "TIFF"), [0, 1, 128, 255]),
        # A dark picture of 16 bits stays dark: its range is declared.
        (saved(Image.fromarray(np.array([[0, 514]], np.uint16)), "TIFF"), [0, 2]),
        (b"P5 2 1 1023 " + struct.pack(">2H", 1023, 341), [255, 85]),
        (tiff(2, 1, 12, 1, 1, bytes([0xFF, 0xF0, 0x00])), [255, 0]),
        (tiff(2, 1, 16, 1, 0, struct.pack("<2H", 0, 65535)), [255, 0]),  # white is zero
        (tiff(3, 1, 16, 2, 1, struct.pack("<3h", -1000, 0, 1000)), [0, 128, 255]),
        (tiff(2, 1, 32, 1, 1, struct.pack("<2I", 2**32 - 1, 2**31)), [255, 128]),
        # 32-bit integers declare nothing: 8 bits, 16 bits, 31 bits, and else the picture's own range.
        (tiff(3, 1, 32, 2, 1, struct.pack("<3i", 0, 51, 102)), [0, 51, 102]),
        (tiff(3, 1, 32, 2, 1, struct.pack("<3i", 0, 257, 51400)), [0, 1, 200]),
        (tiff(3, 1, 32, 2, 1, struct.pack("<3i", 0, 2**30, 2**31 - 1)), [0, 128, 255]),
        (tiff(3, 1, 32, 2, 1, struct.pack("<3i", 100_000, 150_000, 200_000)), [0, 128, 255]),
        (tiff(3, 1, 32, 2, 1, struct.pack("<3i", -50, 0, 50)), [0, 128, 255]),
        (tiff(3, 1, 32, 3, 1, struct.pack("<3f", 0, 0.2, 1)), [0, 51, 255]),
        (tiff(2, 1, 32, 3, 1, struct.pack("<2f", 0, 0.02)), [0, 5]),
        (tiff(3, 1, 32, 3, 1, struct.pack("<3f", 0, 51, 102)), [0, 51, 102]),
        (tiff(3, 1, 32, 3, 1, struct.pack("<3f", 0, 257, 51400)), [0, 1, 200]),
        (tiff(3, 1, 32, 3, 1, struct.pack("<3f", 1, 2, 3)), [0, 128, 255]),
        (tiff(3, 1, 32, 3, 1, struct.pack("<3f", -1e30, 0, 1e30)), [0, 128, 255]),
        (tiff(2, 1, 32, 3, 0, struct.pack("<2f", 0, 1)), [255, 0]),
        # One value: on the scale that holds it, or mid-grey where none does.
        (tiff(2, 1, 32, 3, 1, struct.pack("<2f", 0.2, 0.2)), [51, 51]),
        (tiff(2, 1, 32, 2, 1, struct.pack("<2i", 0, 0)), [0, 0]),
        (tiff(2, 1, 32, 2, 1, struct.pack("<2i", -7, -7)), [128, 128]),
        # No number is no measurement, and white; infinities are beyond white and black.
        (tiff(4, 1, 32, 3, 1, struct.pack("<4f", np.nan, np.inf, -np.inf, 0.2)), [255, 255, 0, 51]),
        (tiff(4, 1, 32, 3, 1, struct.pack("<4f", np.nan, np.inf, -np.inf, -7)), [255, 255, 0, 128]),
    ],
)
def test_deep_and_float_grey_is_scaled_by_its_range(content, expected):
    assert greys(content) == expected
    assert inspect(content).treatments == ("scaled",)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L", "I", "F"])
def test_the_same_grey_in_any_depth_is_the_same_picture(mode):
    grey = np.random.default_rng(3).integers(0, 256, (9, 7), dtype=np.uint8)
    if mode == "F":
        image = Image.fromarray((grey / 255).astype(np.float32))
    elif mode == "I":
        image = Image.fromarray(grey.astype(np.int32) * 257)
    else:
        image = Image.frombytes(
            mode, (7, 9), (grey.astype(np.uint16) * 257).astype(">u2" if mode == "I;16B" else "<u2").tobytes()
        )
    # Not every version of Pillow writes this one.
    for picture in [as_rgb(image), *([] if mode == "I;16L" else [decode(saved(image, "TIFF"))])]:
        assert np.asarray(picture).tolist() == np.stack([grey] * 3, axis=-1).tolist()


def test_a_float_picture_without_a_number_is_refused():
    with pytest.raises(RefusedError, match="none of its values is finite"):
        decode(tiff(2, 1, 32, 3, 1, struct.pack("<2f", np.nan, np.inf)))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "LAB", "HSV"])
def test_other_modes_are_converted_and_nothing_else_is_done(mode):
    colour = Image.new("RGB", (8, 8), (200, 30, 60))
    if mode == "LAB":
        image = Image.new("LAB", (8, 8), (138, 209, 198))  # L* 54.3, a* 80.8, b* 69.9 (offset 128): red in D50
        expected, tolerance = (255, 0, 0), 6
    else:
        image = colour.convert(mode)
        expected, tolerance = tuple(image.convert("RGB").getpixel((3, 3))), 0
    found = np.asarray(as_rgb(image))[3, 3].astype(int)
    assert np.abs(found - expected).max() <= tolerance
    if mode not in ("HSV", "YCbCr"):  # not written as a TIFF, or not by every version of Pillow
        content = saved(image, "TIFF")
        assert np.abs(np.asarray(decode(content))[3, 3].astype(int) - expected).max() <= tolerance
        assert inspect(content) == decoding.PictureHeader((8, 8), mode, ())


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_an_animation_or_a_page_shows_its_first_frame(form):
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow is built without AVIF")
    first, second = Image.new("RGB", (16, 16), (200, 0, 0)), Image.new("RGB", (16, 16), (0, 0, 200))
    content = saved(first, form, save_all=True, append_images=[second])
    assert np.abs(np.asarray(decode(content)).astype(int) - (200, 0, 0)).max() <= 4
    assert "first frame" in inspect(content).treatments
    assert "first frame" not in inspect(saved(first, form)).treatments


def test_a_second_picture_inside_a_jpeg_is_no_frame():
    first, second = Image.new("RGB", (16, 16), (200, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 200))
    assert inspect(saved(first, "MPO", save_all=True, append_images=[second])) == decoding.PictureHeader((16, 16), "RGB", ())


def oriented(number):
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


T = Image.Transpose
UPRIGHT = {
    1: None,
    2: T.FLIP_LEFT_RIGHT,
    3: T.ROTATE_180,
    4: T.FLIP_TOP_BOTTOM,
    5: T.TRANSPOSE,
    6: T.ROTATE_270,
    7: T.TRANSVERSE,
    8: T.ROTATE_90,
}


@pytest.mark.parametrize("number", UPRIGHT)
@pytest.mark.parametrize("form", ["PNG", "TIFF", "TIFF, packed", "WEBP", "JPEG"])
def test_a_picture_is_turned_once_as_its_exif_says(form, number):
    rng = np.random.default_rng(5)
    stored = Image.fromarray(np.kron(rng.integers(0, 256, (2, 3, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8)))
    options = {"WEBP": {"lossless": True}, "TIFF, packed": {"compression": "tiff_adobe_deflate"}}.get(form, {})
    content = saved(stored, form.partition(",")[0], exif=oriented(number), **options)
    upright = stored if UPRIGHT[number] is None else stored.transpose(UPRIGHT[number])
    found = decode(content)
    assert found.size == upright.size == inspect(content).size
    assert found.getexif() == {}
    difference = np.asarray(ImageChops.difference(found, upright))
    assert difference.mean() <= (12 if form == "JPEG" else 0)
    assert inspect(content).treatments == (() if number == 1 else ("turned",))


def test_deep_and_transparent_pictures_are_turned_too():
    deep = Image.fromarray(np.array([[0, 65535]], np.uint16))
    content = saved(deep, "TIFF", tiffinfo={0x0112: 6})
    assert pixels(content) == [[(0, 0, 0)], [WHITE]]
    assert inspect(content).treatments == ("turned", "scaled")
    clear = two("RGBA", (1, 2, 3, 255), (0, 0, 0, 0))
    content = saved(clear, "PNG", exif=oriented(6))
    assert pixels(content) == [[(1, 2, 3)], [WHITE]]
    assert inspect(content) == decoding.PictureHeader((1, 2), "RGBA", ("turned", "flattened"))


def test_a_png_that_is_to_be_turned_says_so_before_or_behind_its_pixels():
    exif = oriented(8).tobytes().removeprefix(b"Exif\0\0")
    row = [bytes([1, 2])]
    for content in (png(2, 1, 8, 0, row, before=[(b"eXIf", exif)]), png(2, 1, 8, 0, row, after=[(b"eXIf", exif)])):
        assert [pixel[0][0] for pixel in pixels(content)] == [2, 1]
        assert inspect(content) == decoding.PictureHeader((1, 2), "L", ("turned",))
    plain = png(2, 1, 8, 0, row, after=[(b"tEXt", b"date:create\x002020-01-01")])
    assert inspect(plain).treatments == ()


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0not a TIFF", b"Exif\0\0II*\0\xff\xff\xff\xff", b"x" * 40])
def test_exif_that_cannot_be_read_turns_nothing(exif):
    content = saved(Image.new("RGB", (6, 3), (9, 9, 9)), "JPEG", exif=exif)
    assert decode(content).size == inspect(content).size == (6, 3)
    assert inspect(content).treatments == ()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", ": the file is empty"),
        (LFS_POINTER, " is a Git LFS pointer, not the picture itself; run `git lfs pull`"),
        (EPS, " is PostScript (EPS), not a raster picture; save it as PNG or JPEG"),
        (b"\xc5\xd0\xd3\xc6" + struct.pack("<6I", 32, len(EPS), 0, 0, 0, 0) + b"\xff\xff\0\0" + EPS, " is PostScript (EPS)"),
        (b"\n\n" + EPS, " is PostScript (EPS)"),
        (b"%PDF-1.4\n", " is PDF, not a raster picture"),
        (b"\xd7\xcd\xc6\x9a" + bytes(60), " is a Windows metafile (WMF)"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', " is SVG"),
    ],
)
def test_what_is_not_a_raster_picture_is_refused(content, says):
    for read in (decode, inspect):
        with pytest.raises(RefusedError) as caught:
            read(content)
        assert str(caught.value).startswith(says)


def test_only_raster_formats_are_opened():
    assert not {"EPS", "PDF", "PSD", "WMF", "FITS", "HDF5", "GRIB", "BUFR", "MPEG", "IM", "FPX", "MIC"} & {*decoding.FORMATS}
    icns = saved(Image.new("RGBA", (16, 16)), "ICNS")
    with pytest.raises(decoding.DECODER_ERRORS):
        decode(icns)


@pytest.mark.parametrize("form", ["BMP", "PPM", "JPEG2000", "AVIF", "QOI", "ICO", "PCX", "SGI", "TGA"])
def test_less_common_raster_formats_are_read(form):
    Image.init()
    if form not in Image.SAVE or form not in decoding._formats():
        pytest.skip(f"this Pillow does not write {form}")
    image = Image.new("RGB", (32, 32), (200, 30, 60))
    assert np.abs(np.asarray(decode(saved(image, form))).astype(int) - (200, 30, 60)).max() <= 4


def test_a_picture_that_would_fill_the_memory_is_refused_whatever_limit_others_have_set(monkeypatch):
    """9,460 x 9,460 pixels in a file of a few hundred kilobytes; other packages in a process raise Pillow's limit."""
    side = 9_460
    content = saved(Image.new("1", (side, side)), "PNG")
    for limit in (10**9, Image.MAX_IMAGE_PIXELS, 10):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        for read in (decode, inspect):
            with pytest.raises(RefusedError, match="more than 89,478,485 pixels"):
                read(content)


def test_a_truncated_picture_is_an_error_whatever_others_have_set(monkeypatch):
    content = saved(Image.effect_noise((64, 64), 90), "JPEG")[:-900]
    for truncated in (False, True):
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", truncated)
        with pytest.raises(OSError, match="truncated"):
            decode(content)
        assert ImageFile.LOAD_TRUNCATED_IMAGES is truncated


def test_an_rgb_picture_is_copied_unless_it_need_not_be():
    image = Image.new("RGB", (2, 2), "red")
    assert as_rgb(image, copy=False) is image
    assert as_rgb(image) is not image
    image.info["transparency"] = (255, 0, 0)
    assert np.asarray(as_rgb(image, copy=False)).min() == 255
