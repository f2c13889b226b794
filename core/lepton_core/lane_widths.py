"""How many bits a lane has, and how many words a vector takes; what is packed in them is `lepton_core.ring`'s."""

from __future__ import annotations

from lepton_core.errors import CodecError

#: Lane widths that leave few bits of a word unused: 8x8, 7x9, 6x10, 5x12, 4x16, 3x21, 2x32.
LANE_BITS = (8, 9, 10, 12, 16, 21, 32)


def lanes_per_word(bits: int) -> int:
    """How many lanes of `bits` one word holds.

    Raises:
        CodecError: not a lane width.
    """
    if bits not in LANE_BITS:
        raise CodecError("not a lane width", expected=f"one of {LANE_BITS}", got=str(bits))
    return 64 // bits


def words_for(length: int, bits: int) -> int:
    """Words needed for `length` values in lanes of `bits`."""
    return -(-length // lanes_per_word(bits))
