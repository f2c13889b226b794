"""Whose record a row is: numbers for the subjects, and a split that no subject crosses. The ids never leave."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from lepton_core.errors import MatchRefusal
from lepton_kg.cells import coded


@dataclass(frozen=True)
class SubjectStep:
    """The column that tells subjects apart; equal texts, blanks around them aside, are one subject."""

    column: str
    #: Raw ids that mean "no subject", sorted; beside empty cells.
    missing: tuple[str, ...]
    #: Each subject has one row.
    unique: bool

    def present(self, schema: pl.Schema) -> pl.Expr:
        """True where a row says whose it is."""
        return self._id(schema).is_not_null()

    def texts(self, frame: pl.DataFrame) -> pl.Series:
        """The ids as text; null where there is none."""
        return frame.select(self._id(frame.schema).alias("id"))["id"]

    def _id(self, schema: pl.Schema) -> pl.Expr:
        id_ = coded(self.column, schema[self.column])
        return pl.when(~id_.is_in(list(self.missing))).then(id_)

    def hashes(self, frame: pl.DataFrame, chosen: pl.Expr | None) -> npt.NDArray[np.uint64]:
        """64-bit hashes of the chosen rows' ids, or of all; among 10^7 subjects two are one with a chance of 3e-6."""
        rows = frame if chosen is None else frame.filter(chosen)
        return self.texts(rows).hash(seed=0).to_numpy()

    def require_unique(self, hashes: npt.NDArray[np.uint64]) -> None:
        """Nothing, if no subject has two rows.

        Raises:
            MatchRefusal: SUBJECT_TWICE; neither who nor how many is told.
        """
        if len(np.unique(hashes)) != len(hashes):
            raise MatchRefusal(
                "a subject has several rows in a source of one row a subject",
                expected="one row a subject, as the owner's mapping says",
                got="more",
                hint="the owner corrects the source, or takes subject.unique out of the mapping",
                reason="SUBJECT_TWICE",
            )


@dataclass(frozen=True)
class SplitStep:
    """Which subjects are held out, by a keyed hash of the id: the same in every job with this seed."""

    share: float
    seed: int

    def held_out(self, subjects: pl.Series) -> npt.NDArray[np.bool_]:
        """(rows,), True where the row's subject is held out; rows without a subject are not."""
        key = hashlib.sha256(b"lepton/split/v1" + self.seed.to_bytes(8, "big")).digest()
        distinct = subjects.unique(maintain_order=True)
        limit = int(self.share * 2**64)
        apart = pl.Series(
            [text is not None and _hash(key, text) < limit for text in distinct.to_list()], dtype=pl.Boolean
        )
        chosen = subjects.replace_strict(distinct, apart, default=None, return_dtype=pl.Boolean)
        return chosen.fill_null(value=False).to_numpy()


def number_subjects(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """(rows,), int64: each row's subject, numbered from 0 in order of first appearance."""
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    number = np.empty(len(first), dtype=np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    return number[inverse]


def _hash(key: bytes, text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), key=key, digest_size=8).digest(), "big")
