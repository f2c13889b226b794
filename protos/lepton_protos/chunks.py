"""Chunks of bulk bytes on the wire: as protobuf writes and reads them, with one copy of the bytes where it makes three.

An `UploadChunk` or `DownloadChunk` whose `data` (field 3) comes last is its other fields, then the field's key, its
length and the bytes; so the others are left to protobuf, and the bytes are taken as they lie. A chunk in another order
is read whole by protobuf: any client's encoding is understood.
"""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import Message

M = TypeVar("M", bound=Message)

#: Field 3, length-delimited.
_DATA_KEY = 0x1A
_LENGTH_DELIMITED, _VARINT = 2, 0
#: A varint has at most so many bytes.
_LONGEST_VARINT = 10
#: The other fields of a chunk are a header and two numbers.
_LARGEST_HEAD = 4096


def encode_chunk(head: Message, data: bytes | memoryview) -> bytes:
    """The message `head`, whose `data` is empty, with these bytes as its data."""
    return b"".join((head.SerializeToString(), bytes((_DATA_KEY,)), _varint(len(data)), data))


def split_chunk(kind: type[M], raw: bytes) -> tuple[M, memoryview]:
    """The message without its data, and the data as a view of `raw`.

    Raises:
        DecodeError: not such a message.
    """
    start = _data_start(raw)
    if start is not None:
        key, data = start
        return kind.FromString(raw[:key]), memoryview(raw)[data:]
    message = kind.FromString(raw)
    data_view = memoryview(message.data)  # type: ignore[attr-defined]  # both kinds have it
    message.ClearField("data")
    return message, data_view


def _data_start(raw: bytes) -> tuple[int, int] | None:
    """Where the data field begins and where its bytes, if they are the rest of the message; else None."""
    at = 0
    while at < min(len(raw), _LARGEST_HEAD):
        key = raw[at]
        value = _read_varint(raw, at + 1)
        if value is None:
            return None
        number, after = value
        if key == _DATA_KEY:
            return (at, after) if after + number == len(raw) else None
        if key & 7 == _VARINT:
            at = after
        elif key & 7 == _LENGTH_DELIMITED:
            at = after + number
        else:
            return None
    return None


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def _read_varint(raw: bytes, at: int) -> tuple[int, int] | None:
    """The number at this place, and the place behind it."""
    number = 0
    for count, byte in enumerate(raw[at : at + _LONGEST_VARINT]):
        number |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return number, at + count + 1
    return None
