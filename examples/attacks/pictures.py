"""Digits as PNG files, and rows of them as one SVG with names, without a plotting library."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.float64]

#: Pixels along a side of a digit, in the data and on paper.
SIDE = 8
_SHOWN, _GAP, _NAMES, _TOP = 48, 6, 310, 10


@dataclass(frozen=True, eq=False)
class Strip:
    """A row of digits under one name."""

    name: str
    #: Shape (count, 64), ink in [0, 1].
    images: Images


def draw_png(images: Images, *, magnify: int = 6) -> bytes:
    """The digits side by side, dark ink on white, as 8-bit greyscale; images: (count, 64) in [0, 1]."""
    ink = images.reshape(-1, SIDE, SIDE).transpose(1, 0, 2).reshape(SIDE, -1)
    grey = (255.0 * (1.0 - np.clip(ink, 0.0, 1.0))).round().astype(np.uint8)
    grey = grey.repeat(magnify, axis=0).repeat(magnify, axis=1)  # (height, width)
    height, width = grey.shape
    lines = np.hstack([np.zeros((height, 1), dtype=np.uint8), grey])  # each line behind its filter, none
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def draw_strips(strips: Sequence[Strip]) -> str:
    """The strips below each other, as an SVG document that holds the digits as PNG."""
    count = max(len(strip.images) for strip in strips)
    width, height = _NAMES + count * (_SHOWN + _GAP), _TOP + len(strips) * (_SHOWN + _GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for row, strip in enumerate(strips):
        y = _TOP + row * (_SHOWN + _GAP)
        parts.append(f'<text x="8" y="{y + _SHOWN // 2 + 4}">{escape(strip.name)}</text>')
        for column, image in enumerate(strip.images):
            data = base64.b64encode(draw_png(image[None], magnify=1)).decode()
            parts.append(
                f'<image x="{_NAMES + column * (_SHOWN + _GAP)}" y="{y}" width="{_SHOWN}" height="{_SHOWN}" '
                f'style="image-rendering:pixelated" href="data:image/png;base64,{data}"/>'
            )
    return "\n".join([*parts, "</svg>", ""])
