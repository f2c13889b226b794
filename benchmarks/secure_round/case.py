"""The size of a measured round, and its terms."""

from __future__ import annotations

from dataclasses import dataclass

from lepton_core.secagg.terms import LaneGroup, Terms

_DIGEST = bytes(32)


@dataclass(frozen=True)
class Case:
    """A round of so many members, of whom `lost` vanish after they dealt shares, which costs most."""

    members: int
    dimension: int
    lost: int
    corruption: float
    dropout: float
    ring_bits: int
    threads: int
    #: k and t above 64 members; 0: as found.
    neighbours: int = 0
    threshold: int = 0
    #: Members whose work is measured; the others do all of it but verify no signature. 0: everybody.
    sample: int = 0

    @property
    def largest(self) -> int:
        """The largest value of a member's vector; the sum of all fits the lanes."""
        return ((1 << self.ring_bits) - 1) // self.members

    def terms(self) -> Terms:
        """The round's terms, with every digest zero."""
        return Terms(
            job_digest=_DIGEST,
            ontology_digest=_DIGEST,
            membership_digest=_DIGEST,
            compiler_version="1",
            codec_version="1",
            layout_digest=_DIGEST,
            model_length=self.dimension,
            lane_groups=(LaneGroup(self.dimension, self.ring_bits),),
            min_cohort=3,
            max_cohort=self.members,
            corruption=self.corruption,
            dropout=self.dropout,
            security_bits=80,
            step_deadline_s=60.0,
            neighbours=self.neighbours,
            threshold=self.threshold,
        )
