"""One member's integers as the words that a round sums, and the words of the sum as integers again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lepton_core.errors import CodecError
from lepton_core.ring import Lanes, Words, pack, require_range, unpack
from lepton_core.secagg.terms import Terms


def pack_input(vectors: Sequence[Lanes], terms: Terms) -> Words:
    """A member's input without masks, shape (terms.words,), uint64.

    vectors: one a lane group, shape (group.length,), int64, small enough that the sum of `terms.max_cohort` members
        stays in its lanes; then no lane ever runs into the next.

    Raises:
        CodecError: other vectors than the terms say, or values out of range; the rule is named, no value is told.
    """
    lengths = [group.length for group in terms.lane_groups]
    if [vector.shape for vector in vectors] != [(length,) for length in lengths]:
        raise CodecError(
            "an input that does not fit the terms",
            expected=f"one vector a lane group, of lengths {lengths}",
            got=f"shapes {[vector.shape for vector in vectors]}",
        )
    for vector, group in zip(vectors, terms.lane_groups, strict=True):
        require_range(vector, group.bits, terms.max_cohort)
    return np.concatenate([pack(vector, group.bits) for vector, group in zip(vectors, terms.lane_groups, strict=True)])


def unpack_sum(groups: Sequence[Words], terms: Terms) -> list[Lanes]:
    """The sum's integers, one vector a lane group, of what `unmask.unmask` gave; exact for inputs of `pack_input`.

    Raises:
        CodecError: words that do not fit the terms.
    """
    if len(groups) != len(terms.lane_groups):
        raise CodecError("a sum that does not fit the terms", expected=f"{len(terms.lane_groups)} lane groups")
    return [unpack(words, group.bits, group.length) for words, group in zip(groups, terms.lane_groups, strict=True)]
