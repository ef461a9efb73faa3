"""PNG files (ISO/IEC 15948) from arrays, as bytes: pictures without a library for pictures."""

import struct
import zlib

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""`(row, column, 3)`: red, green, blue."""


def encode(pixels: Pixels) -> bytes:
    """A whole PNG file; up to 256 colours are stored as a palette, which is a third of the size.

    Args:
        pixels: `(row, column, 3)`.
    """
    height, width, _ = pixels.shape
    codes = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colours, places = np.unique(codes, return_inverse=True)
    if len(colours) <= 256:
        kind, values = 3, places.reshape(height, width).astype(np.uint8)
        table = np.stack([colours >> 16, colours >> 8, colours], axis=1).astype(np.uint8)
        palette = _chunk(b"PLTE", table.tobytes())
    else:
        kind, values, palette = 2, pixels.reshape(height, width * 3), b""
    # Each row as its difference (modulo 256) to the one above, which filter 2 undoes.
    rows = np.diff(values, axis=0, prepend=np.zeros_like(values[:1]))
    rows = np.pad(rows, ((0, 0), (1, 0)), constant_values=2)
    head = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    data = _chunk(b"IDAT", zlib.compress(rows.tobytes(), 6))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + palette + data + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)
