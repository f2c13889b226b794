"""What stands before an update that is not masked: which codec made it, of how many values, with which seed.

32 bytes: the magic `LPU1`, codec number (1 byte), 3 zero bytes, the codec's parameter (8 bytes, a float64), number of
values (8 bytes), and the first 8 bytes of SHA-256 over the label and the seed. All integers are little-endian. A reader
knows all of it beforehand; whatever differs is refused before memory is taken.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from lepton_compression.update.streams import derive_key, require_seed
from lepton_core.errors import CodecError

_FRAME = struct.Struct("<4sB3xdQ8s")
HEADER_BYTES = _FRAME.size
_MAGIC = b"LPU1"
_LABEL = b"lepton/codec/v1/frame"


@dataclass(frozen=True)
class Frame:
    """What a header says of a payload, beside its seed."""

    codec: int
    parameter: float
    #: Values of the update.
    length: int

    def around(self, body: bytes, seed: bytes) -> bytes:
        """The body behind its header."""
        return self._header(seed) + body

    def require_body(self, payload: bytes, seed: bytes, body_bytes: int) -> memoryview:
        """The body, if the payload is one of this frame with this seed, and exactly as long as it must be.

        Raises:
            CodecError: says what differs; never the seed.
        """
        if len(payload) != HEADER_BYTES + body_bytes:
            raise CodecError(
                "an encoded update of another length",
                where="payload",
                expected=f"{HEADER_BYTES + body_bytes} bytes for {self.length} values",
                got=f"{len(payload)} bytes",
            )
        if payload[:HEADER_BYTES] == self._header(seed):
            return memoryview(payload)[HEADER_BYTES:]
        magic, codec, parameter, length, _ = _FRAME.unpack_from(payload)
        if magic != _MAGIC:
            raise CodecError(
                "not an encoded update of this version", where="payload", expected=repr(_MAGIC), got=repr(magic)
            )
        if (codec, parameter, length) != (self.codec, self.parameter, self.length):
            raise CodecError(
                "an update of another codec",
                where="payload",
                expected=f"codec {self.codec} ({self.parameter:g}) of {self.length} values",
                got=f"codec {codec} ({parameter:g}) of {length} values",
            )
        raise CodecError("an update encoded with another seed, or a damaged header", where="payload")

    def _header(self, seed: bytes) -> bytes:
        tag = derive_key(_LABEL, require_seed(seed, "codec seed"))[:8]
        return _FRAME.pack(_MAGIC, self.codec, self.parameter, self.length, tag)
