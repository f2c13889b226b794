"""Step 5's vector work: sum the survivors' words, and take away every mask that did not cancel."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, TypeVar

import numpy as np

from lepton_core.ring import Words
from lepton_core.secagg.masks import MaskStream, add_masks, masks_of, split_groups
from lepton_core.secagg.terms import Terms

T = TypeVar("T")
R = TypeVar("R")

#: Slices are as equal as can be, so that no thread waits for another, and at most this long: below about 1 MiB,
#: threads would wait for each other more than they work.
SLICE_WORDS = 2**17


@dataclass(frozen=True)
class UnmaskPlan:
    """The masks to add to the sum of the survivors' words, signs already turned. Keys are redacted in `repr`.

    It reveals the sum of a sum that may be revealed, and no member's input. Dropped when the sum is unmasked.
    """

    streams: tuple[MaskStream, ...]
    #: Self masks taken away: one a survivor.
    self_masks: int
    #: Pair masks taken away: one for each survivor paired with a member that dropped out.
    pair_masks: int
    #: Masking keys rebuilt from shares: one a member that dropped out after its shares were dealt.
    mask_keys_reconstructed: int


def sum_words(contributions: Iterable[Words], terms: Terms) -> Words:
    """The sum modulo 2^64; shape (terms.words,), uint64. Holds one contribution at a time.

    Raises:
        CodecError: a contribution that is not as long as the terms say.
    """
    total = np.zeros(terms.words, dtype=np.uint64)
    for words in contributions:
        split_groups(words, terms)  # refuses another length
        np.add(total, words, out=total)
    return total


class Parallel(Protocol):
    """`map`, or that of a pool of threads."""

    def __call__(self, function: Callable[[T], R], values: Iterable[T], /) -> Iterable[R]:
        """What the function gives for each value, in their order."""
        ...


def unmask(total: Words, plan: UnmaskPlan, terms: Terms, run: Parallel = map) -> list[Words]:
    """The packed sum of the survivors' inputs, one vector a lane group (`ring.unpack` reads it).

    total: shape (terms.words,), what `sum_words` gave over exactly the survivors; it is left as it was.
    run: does the work on every slice, in any order, and may use threads (`ThreadPoolExecutor.map`): the ciphers and
        additions release the interpreter, slices are disjoint, and the result is the same to the bit.

    Raises:
        CodecError: the total is not as long as the terms say.
    """
    groups = split_groups(total.copy(), terms)
    slices = [
        _Slice(words[start:stop], index, start)
        for index, words in enumerate(groups)
        for start, stop in pairwise(_bounds(len(words)))
    ]
    each = map if len(slices) == 1 else run  # for one, handing it over costs more than the work
    for _ in each(lambda piece: unmask_slice(piece.words, plan, piece.group, piece.start_word), slices):
        pass
    return groups


def _bounds(length: int) -> list[int]:
    """Where the slices of so many words begin, and the last one ends."""
    count = max(1, -(-length // SLICE_WORDS))
    return [length * index // count for index in range(count + 1)]


@dataclass(frozen=True)
class _Slice:
    """Part of a lane group, from word `start_word` on."""

    words: Words
    group: int
    start_word: int


def unmask_slice(words: Words, plan: UnmaskPlan, group: int, start_word: int = 0) -> None:
    """Unmask words `start_word ..` of one lane group in place; slices are independent, so threads can share a sum.

    Raises:
        CodecError: not a writable vector of uint64.
    """
    add_masks(words, masks_of(plan.streams, group), start_word)
