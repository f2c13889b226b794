"""A round's terms and its two ids: what every member signs before a secret is made.

Source: Bell, Bonawitz, Gascón, Lepoint, Raykova 2020 (SecAgg+) for graph and threshold; the two ids are ours, since
steps 0 and 1 run before the round's model exists.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from lepton_core.canonical import canonical_json
from lepton_core.errors import InputError
from lepton_core.ids import JobId, MemberId, RoundNumber
from lepton_core.lane_widths import LANE_BITS, words_for

#: Below three members a sum tells each of two members the other's update.
SMALLEST_COHORT = 3
#: Up to this many members everybody is everybody's neighbour.
COMPLETE_GRAPH_LIMIT = 64
#: A roster has 48 bytes a member; 10,000 are 480 kB, an eighth of a message's cap.
LARGEST_COHORT = 10_000
#: sigma of every sparse graph is at least this: the last member to advertise can try keys offline until it likes the
#: graph, so a chance of 2^-40 would not be small.
LEAST_SECURITY_BITS = 80
#: Longest vector that terms may ask for; 2^34 values are 32 GiB of 16-bit lanes.
LONGEST_VECTOR = 2**34


@dataclass(frozen=True)
class LaneGroup:
    """`length` values in lanes of `bits`; a vector is a sequence of groups."""

    length: int
    bits: int

    @property
    def words(self) -> int:
        """Packed length in 64-bit words."""
        return words_for(self.length, self.bits)


@dataclass(frozen=True)
class Terms:
    """Everything about a round that must be equal for all its members. Digests are 32 bytes."""

    job_digest: bytes
    ontology_digest: bytes
    #: Digest of the signed membership list that names who may be a peer.
    membership_digest: bytes
    compiler_version: str
    codec_version: str
    layout_digest: bytes
    #: Parameters of the model, before pruning.
    model_length: int
    lane_groups: tuple[LaneGroup, ...]
    #: m: fewest survivors whose sum may be revealed.
    min_cohort: int
    #: Largest n the lanes have room for.
    max_cohort: int
    #: gamma: share of members assumed to collude with the coordinator.
    corruption: float
    #: delta: share of members expected to drop out.
    dropout: float
    #: sigma: statistical security of graph and threshold.
    security_bits: int
    #: Longest a step waits, in seconds.
    step_deadline_s: float
    #: k and t of a sparse graph, for cohorts above 64; 0 and 0: each side finds them. Checked like everything else.
    neighbours: int = 0
    threshold: int = 0

    def encode(self) -> bytes:
        """Canonical JSON of the terms; equal terms give equal bytes."""
        return self._encoded

    @cached_property
    def _encoded(self) -> bytes:
        given = {"neighbours": self.neighbours, "threshold": self.threshold}
        return canonical_json(
            {
                "job": self.job_digest.hex(),
                "ontology": self.ontology_digest.hex(),
                "membership": self.membership_digest.hex(),
                "compiler": self.compiler_version,
                "codec": self.codec_version,
                "layout": self.layout_digest.hex(),
                "model_length": self.model_length,
                "lane_groups": [[group.length, group.bits] for group in self.lane_groups],
                "min_cohort": self.min_cohort,
                "max_cohort": self.max_cohort,
                "corruption": float(self.corruption),
                "dropout": float(self.dropout),
                "security_bits": self.security_bits,
                "step_deadline_s": float(self.step_deadline_s),
                **{key: number for key, number in given.items() if number},
            }
        )

    def digest(self) -> bytes:
        """SHA-256 of the encoding with a label; 32 bytes."""
        return self._digest

    @cached_property
    def _digest(self) -> bytes:
        return hashlib.sha256(b"lepton/secagg/v1/terms" + self.encode()).digest()

    @cached_property
    def words(self) -> int:
        """Packed length of a masked input in 64-bit words."""
        return sum(group.words for group in self.lane_groups)

    @property
    def payload_bytes(self) -> int:
        """Bytes of a masked input."""
        return 8 * self.words

    def require_sound(self) -> None:
        """Refuse terms that no honest coordinator would propose, before any secret is made.

        Raises:
            InputError: names the rule that is broken.
        """
        digests = (self.job_digest, self.ontology_digest, self.membership_digest, self.layout_digest)
        total = sum(group.length for group in self.lane_groups)
        rules = (
            (all(len(digest) == 32 for digest in digests), "digests have 32 bytes"),
            (self.min_cohort >= SMALLEST_COHORT, f"min_cohort is at least {SMALLEST_COHORT}"),
            (self.max_cohort >= self.min_cohort, "max_cohort is at least min_cohort"),
            (self.max_cohort <= LARGEST_COHORT, f"max_cohort is at most {LARGEST_COHORT}"),
            (bool(self.lane_groups), "there is a lane group"),
            (all(group.length >= 1 for group in self.lane_groups), "every lane group holds a value"),
            (all(group.bits in LANE_BITS for group in self.lane_groups), f"lanes have one of {LANE_BITS} bits"),
            (
                all(self.max_cohort < 2**group.bits for group in self.lane_groups),
                "every lane holds the sum of max_cohort values of one bit",
            ),
            (0 < total <= LONGEST_VECTOR, f"the vector has 1 to {LONGEST_VECTOR} values"),
            (self.model_length >= 1, "the model has a parameter"),
            (0.0 <= self.corruption < 0.5, "corruption is in [0, 0.5)"),
            (0.0 <= self.dropout < 1.0, "dropout is in [0, 1)"),
            (LEAST_SECURITY_BITS <= self.security_bits <= 256, f"security_bits is {LEAST_SECURITY_BITS} to 256"),
            (
                self.neighbours == self.threshold == 0 or 1 <= self.threshold <= self.neighbours,
                "neighbours and threshold are both given or both left out, and the threshold is no larger",
            ),
            (math.isfinite(self.step_deadline_s) and self.step_deadline_s > 0, "the step deadline is positive"),
        )
        for holds, rule in rules:
            if not holds:
                raise InputError("terms that cannot be accepted", where="secure aggregation terms", expected=rule)


@lru_cache(maxsize=8)  # a member gets the same terms in every round of a job
def decode_terms(encoded: bytes) -> Terms:
    """The terms in their canonical bytes; soundness is checked apart, by `Terms.require_sound`.

    Raises:
        InputError: not the canonical encoding of terms.
    """
    try:
        document = json.loads(encoded)
        terms = Terms(
            job_digest=bytes.fromhex(document["job"]),
            ontology_digest=bytes.fromhex(document["ontology"]),
            membership_digest=bytes.fromhex(document["membership"]),
            compiler_version=str(document["compiler"]),
            codec_version=str(document["codec"]),
            layout_digest=bytes.fromhex(document["layout"]),
            model_length=int(document["model_length"]),
            lane_groups=tuple(LaneGroup(int(length), int(bits)) for length, bits in document["lane_groups"]),
            min_cohort=int(document["min_cohort"]),
            max_cohort=int(document["max_cohort"]),
            corruption=float(document["corruption"]),
            dropout=float(document["dropout"]),
            security_bits=int(document["security_bits"]),
            step_deadline_s=float(document["step_deadline_s"]),
            neighbours=int(document.get("neighbours", 0)),
            threshold=int(document.get("threshold", 0)),
        )
        same = terms.encode() == encoded
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise InputError("terms that cannot be read", got=f"{type(error).__name__}: {error}"[:160]) from None
    if not same:
        raise InputError("terms that are not in canonical form", expected="the bytes that `Terms.encode` gives")
    return terms


@dataclass(frozen=True)
class Setup:
    """What opens a round: the coordinator's invitation, the same for every member."""

    job: JobId
    round: RoundNumber
    terms: Terms
    #: SHA-256 of the coordinator's 32-byte nonce, opened with the roster, so that it cannot choose the graph.
    nonce_commitment: bytes

    def setup_id(self) -> bytes:
        """Names steps 0 and 1; 32 bytes."""
        return labelled_hash(
            b"lepton/secagg/v1/setup",
            self.job.encode(),
            self.round.to_bytes(8, "big"),
            self.terms.digest(),
            self.nonce_commitment,
        )


def derive_sid(setup_id: bytes, roster_root: bytes, model_digest: bytes) -> bytes:
    """Names steps 2 to 4; members that were shown different rosters or models get different ids. 32 bytes."""
    return labelled_hash(b"lepton/secagg/v1/round", setup_id, roster_root, model_digest)


def derive_codec_seed(sid: bytes) -> bytes:
    """The round's public seed of pruning mask and rotation; nobody can choose it. 32 bytes."""
    return labelled_hash(b"lepton/codec/v1/seed", sid)


def commit_nonce(nonce: bytes) -> bytes:
    """The commitment that opens to the coordinator's nonce."""
    return labelled_hash(b"lepton/secagg/v1/nonce", nonce)


def complete_graph_threshold(members: int) -> int:
    """Threshold t of n holders in the complete graph: floor(2n/3) + 1; two thresholds share over n/3 members."""
    return 2 * members // 3 + 1


def survivors_digest(sid: bytes, survivors: Sequence[MemberId]) -> bytes:
    """What a survivor signs in step 3: the round and the sorted set; 32 bytes."""
    return labelled_hash(b"lepton/secagg/v1/survivors", sid, *survivors)


class _Lengths(dict[int, bytes]):
    """A part's length as 8 bytes, big-endian; the usual ones are kept, since a member hashes 10,000s of parts."""

    def __missing__(self, length: int) -> bytes:
        return length.to_bytes(8, "big")


_LENGTHS = _Lengths({length: length.to_bytes(8, "big") for length in range(128)})


def labelled_hash(label: bytes, *parts: bytes) -> bytes:
    """SHA-256 over the label and every part, each behind its length, so no two lists collide."""
    behind = (label, *parts)
    pieces: list[bytes] = [b""] * (2 * len(behind))
    pieces[::2] = map(_LENGTHS.__getitem__, map(len, behind))
    pieces[1::2] = behind
    return hashlib.sha256(b"".join(pieces)).digest()
