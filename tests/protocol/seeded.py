"""Seeded randomness, keys and terms for rounds in memory."""

import hashlib

import numpy as np

from lepton_core.identity import IdentityKey
from lepton_core.ring import pack
from lepton_core.secagg.terms import LaneGroup, Terms


class SeededRandomness:
    """Bytes that follow from a seed: SHA-256 in counter mode. For tests only."""

    def __init__(self, seed: str) -> None:
        self._seed = seed.encode()
        self._drawn = 0

    def token(self, length: int) -> bytes:
        out = b""
        while len(out) < length:
            out += hashlib.sha256(self._seed + b"|" + self._drawn.to_bytes(8, "big")).digest()
            self._drawn += 1
        return out[:length]


def make_identities(count: int, seed: str = "identities") -> list[IdentityKey]:
    """`count` identities, sorted by member id."""
    randomness = SeededRandomness(seed)
    return sorted((IdentityKey.generate(randomness) for _ in range(count)), key=lambda key: key.member)


def make_terms(groups: tuple[LaneGroup, ...] = (LaneGroup(9, 16), LaneGroup(5, 21)), **changes) -> Terms:
    """Sound terms of a small round."""
    fields = {
        "job_digest": b"j" * 32,
        "ontology_digest": b"o" * 32,
        "membership_digest": b"m" * 32,
        "compiler_version": "1",
        "codec_version": "1",
        "layout_digest": b"l" * 32,
        "model_length": 14,
        "lane_groups": groups,
        "min_cohort": 3,
        "max_cohort": 64,
        "corruption": 0.1,
        "dropout": 0.2,
        "security_bits": 80,
        "step_deadline_s": 30.0,
    }
    return Terms(**(fields | changes))


def draw_values(terms: Terms, members: int, rng: np.random.Generator) -> list[np.ndarray]:
    """One member's integers, one vector a lane group, small enough that the sum of `members` fits the lanes."""
    return [
        rng.integers(0, (2**group.bits - 1) // members + 1, size=group.length, dtype=np.int64)
        for group in terms.lane_groups
    ]


def pack_values(values: list[np.ndarray], terms: Terms) -> np.ndarray:
    """The packed words of one member's integers."""
    return np.concatenate([pack(part, group.bits) for part, group in zip(values, terms.lane_groups, strict=True)])
