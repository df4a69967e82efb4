"""PNG by zlib alone, since no part needs an image library."""

import base64
import struct
import zlib

from converter.weights import Array


def png(pixels: Array) -> bytes:
    """Encode uint8 RGB pixels [H, W, 3] (PNG specification, colour type 2, filter 0)."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def data_uri(pixels: Array) -> str:
    """The same as an address that an <img> can hold."""
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
