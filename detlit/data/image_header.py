"""The size of an image from the first bytes of its file, without decoding it."""

import struct
from typing import BinaryIO

__all__ = ["displayed_size"]

_START = 32  # bytes that tell the format, and for most formats the size


def displayed_size(file: BinaryIO) -> tuple[int, int] | None:
    """Return (height, width) as :func:`~detlit.data.images.read_image` returns them, so EXIF turns included.

    ``None`` where only decoding tells: other formats, damaged headers, and EXIF in formats where it is rare.

    Args:
        file: a file opened for reading bytes, JPEG, PNG, BMP, WebP or TIFF.
    """
    start = file.read(_START)
    try:
        if start.startswith(b"\xff\xd8"):
            return _jpeg(file)
        if start.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png(file, start)
        if start.startswith(b"BM"):
            return _bmp(start)
        if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
            return _webp(start)
        if start[:4] in (b"II*\0", b"MM\0*"):
            return _tiff(file, start)
    except (struct.error, IndexError):
        pass
    return None


def _jpeg(file: BinaryIO) -> tuple[int, int] | None:
    """Walk over the segments to the frame header, https://www.w3.org/Graphics/JPEG/itu-t81.pdf B.1.1.3."""
    orientation = None
    file.seek(2)
    while True:
        marker = file.read(2)
        while marker == b"\xff\xff":  # fill bytes
            marker = b"\xff" + file.read(1)
        if len(marker) < 2 or marker[0] != 0xFF or marker[1] in (0xD9, 0xDA):
            return None
        length = int(struct.unpack(">H", file.read(2))[0]) - 2
        if 0xC0 <= marker[1] <= 0xCF and marker[1] not in (0xC4, 0xC8, 0xCC):
            _, height, width = struct.unpack(">BHH", file.read(5))
            return ((width, height) if orientation in (5, 6, 7, 8) else (height, width)) if height and width else None
        if marker[1] == 0xE1 and orientation is None:
            segment = file.read(length)
            orientation = _orientation(segment[6:]) if segment.startswith(b"Exif\0\0") else None
        else:
            file.seek(length, 1)


def _orientation(tiff: bytes) -> int:
    """Return the orientation that the first directory of EXIF data notes, 1 where it notes none; CIPA DC-008."""
    try:
        order = {b"II": "<", b"MM": ">"}[tiff[:2]]
        (offset,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, offset)
        for entry in range(offset + 2, offset + 2 + 12 * count, 12):
            if struct.unpack_from(order + "H", tiff, entry)[0] == 0x0112:
                return int(struct.unpack_from(order + "H", tiff, entry + 8)[0])
    except (KeyError, struct.error):
        pass
    return 1


def _png(file: BinaryIO, start: bytes) -> tuple[int, int] | None:
    width, height = struct.unpack_from(">II", start, 16)
    file.seek(8)
    while len(chunk := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", chunk)
        if name == b"eXIf":
            return None
        file.seek(length + 4, 1)
    return height, width


def _bmp(start: bytes) -> tuple[int, int]:
    (header,) = struct.unpack_from("<I", start, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", start, 18)
    return abs(height), width  # a negative height stores the rows from top to bottom


def _webp(start: bytes) -> tuple[int, int] | None:
    """Read one of the three layouts, https://developers.google.com/speed/webp/docs/riff_container."""
    kind = start[12:16]
    if kind == b"VP8X" and not start[20] & 0x08:  # the flag says that EXIF follows
        return int.from_bytes(start[27:30], "little") + 1, int.from_bytes(start[24:27], "little") + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", start, 21)
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", start, 26)
        return height & 0x3FFF, width & 0x3FFF
    return None


def _tiff(file: BinaryIO, start: bytes) -> tuple[int, int] | None:
    order = "<" if start.startswith(b"II") else ">"
    file.seek(struct.unpack_from(order + "I", start, 4)[0])
    tags = {}
    for _ in range(struct.unpack(order + "H", file.read(2))[0]):
        tag, kind, count, value = struct.unpack(order + "HHI4s", file.read(12))
        if tag in (256, 257, 274) and count == 1:
            tags[tag] = int(struct.unpack(order + ("H2x" if kind == 3 else "I"), value)[0])
    return (tags[257], tags[256]) if {256, 257} <= set(tags) and tags.get(274, 1) <= 4 else None
