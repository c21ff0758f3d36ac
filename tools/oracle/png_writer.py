"""Writes PNG files of any colour type, bit depth and interlacing (Pillow writes only some of them)."""

import struct
import zlib

import numpy as np

ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))  # y, x, step y, step x


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def packed_rows(samples, depth):
    """The rows of samples [height, width, channels] as bytes, each with its filter byte in front (filters 0 to 2 in turn)."""
    data, previous = b"", None
    pixel = max(1, samples.shape[2] * depth // 8)
    for index, row in enumerate(samples.reshape(len(samples), -1)):
        if depth == 16:
            raw = row.astype(">u2").tobytes()
        else:
            bits = (row[:, None] >> np.arange(depth - 1, -1, -1)) & 1
            raw = np.packbits(bits.astype(np.uint8).reshape(-1)).tobytes()
        current = np.frombuffer(raw, np.uint8)
        kind = index % 3
        if kind == 1:
            filtered = current - np.concatenate([np.zeros(pixel, np.uint8), current])[:len(current)]
        elif kind == 2 and previous is not None:
            filtered = current - previous
        else:
            kind, filtered = 0, current
        data += bytes([kind]) + filtered.tobytes()
        previous = current
    return data


def write_png(samples, colour, depth, palette=None, transparency=None, interlaced=False, extra=()):
    """The bytes of a PNG file of integer samples [height, width, channels]; colour is PNG's colour type."""
    height, width, _ = samples.shape
    if interlaced:
        parts = [samples[y::step_y, x::step_x] for y, x, step_y, step_x in ADAM7]
        data = b"".join(packed_rows(part, depth) for part in parts if part.size)
    else:
        data = packed_rows(samples, depth)
    result = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced)))
    result += b"".join(chunk(kind, content) for kind, content in extra)
    if palette is not None:
        result += chunk(b"PLTE", bytes(np.asarray(palette).reshape(-1).tolist()))
    if transparency is not None:
        result += chunk(b"tRNS", transparency)
    return result + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")
