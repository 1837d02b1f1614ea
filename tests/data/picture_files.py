"""Picture files written byte by byte, of kinds that Pillow reads but does not write."""

import struct
import zlib


def _chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, depth, colour, rows, before=(), after=()):
    """A PNG; `before` and `after` are chunks (kind, content) before and behind its pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [(b"IHDR", header), *before, (b"IDAT", pixels), *after, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def tiff(width, height, bits, sample_format, photometric, pixels):
    """An uncompressed grey TIFF of one strip, little-endian; sample formats: 1 unsigned, 2 signed, 3 float."""
    tags = [
        *((256, 3, width), (257, 3, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric)),
        *((273, 4, 8 + 2 + 12 * 10 + 4), (277, 3, 1), (278, 3, height), (279, 4, len(pixels)), (339, 3, sample_format)),
    ]
    entries = b"".join(struct.pack("<HHI", tag, kind, 1) + struct.pack("<I", value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + pixels


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n0 0 10 10 rectfill\nshowpage\n%%EOF\n"
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 12345\n"
