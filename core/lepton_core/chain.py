"""Why a model version follows from the one before: the signed transcript of a round, and the sum it published.

A coordinator that pushes one crafted model to everybody is not found out by comparing models. So a member keeps the
chain: it computes each model itself, from the one before and the round's sum, and trains on no other. The first comes
from the job's public seed, or from the weights that the job names.

What a link proves: that a threshold of admitted members signed that the sum of this round, on this model, is over
exactly these survivors. That the published sum is theirs nobody can see; but every member that goes on has computed
with the same one, since the next model is in the keys of the next round's masks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lepton_core.canonical import canonical_json
from lepton_core.errors import InputError, PeerViolation
from lepton_core.ids import JobId, MemberId, ModelVersion, RoundNumber
from lepton_core.ring import Words
from lepton_core.secagg.messages import SIGNATURE_BYTES, ConsistencySignature
from lepton_core.secagg.terms import Setup, Terms, complete_graph_threshold, derive_codec_seed
from lepton_core.secagg.transcript import Transcript, require_signed

#: Models of more values are taken as the coordinator gives them, since computing each anew would cost a member more
#: than training; the privacy card says so.
MOST_CHECKED_VALUES = 2**26
_LENGTH_BYTES = 8
#: A survivor takes about 250 bytes.
_LARGEST_HEADER = 8 * 2**20


@dataclass(frozen=True, eq=False)
class Link:
    """From the model of `transcript` to the next version."""

    setup: Setup
    transcript: Transcript
    #: The unmasked sum, shape (terms.words,), uint64.
    words: Words

    @property
    def version(self) -> ModelVersion:
        """The version it leads to."""
        return ModelVersion(self.transcript.model_version + 1)

    @property
    def codec_seed(self) -> bytes:
        """The round's public seed of pruning mask and rotation."""
        return derive_codec_seed(self.transcript.sid)


def encode_link(link: Link) -> bytes:
    """Length of the header, header (canonical JSON), words (little-endian)."""
    transcript = link.transcript
    header = canonical_json(
        {
            "round": link.setup.round,
            "nonce_commitment": link.setup.nonce_commitment.hex(),
            "roster_root": transcript.roster_root.hex(),
            "model_version": transcript.model_version,
            "model_digest": transcript.model_digest.hex(),
            "survivors": [member.hex() for member in transcript.survivors],
            "signatures": [[entry.member.hex(), entry.signature.hex()] for entry in transcript.signatures],
        }
    )
    return len(header).to_bytes(_LENGTH_BYTES, "big") + header + link.words.astype("<u8").tobytes()


def largest_link(terms: Terms) -> int:
    """Most bytes of a link under these terms."""
    return _LENGTH_BYTES + _LARGEST_HEADER + terms.payload_bytes


def parse_link(content: bytes, job: JobId, terms: Terms) -> Link:
    """The link in these bytes, for a job of these terms; nothing of it is believed yet.

    Raises:
        InputError: not such bytes, or a sum of another length.
    """
    length = int.from_bytes(content[:_LENGTH_BYTES], "big")
    start = _LENGTH_BYTES + length
    if len(content) < _LENGTH_BYTES or length > _LARGEST_HEADER or len(content) != start + terms.payload_bytes:
        raise InputError(
            "a link of another length", where="link", expected=f"a header and {terms.payload_bytes} bytes of words"
        )
    try:
        document: Any = json.loads(content[_LENGTH_BYTES:start])
        setup = Setup(job, RoundNumber(int(document["round"])), terms, bytes.fromhex(document["nonce_commitment"]))
        transcript = Transcript(
            setup_id=setup.setup_id(),
            roster_root=bytes.fromhex(document["roster_root"]),
            model_version=ModelVersion(int(document["model_version"])),
            model_digest=bytes.fromhex(document["model_digest"]),
            survivors=tuple(MemberId(bytes.fromhex(member)) for member in document["survivors"]),
            signatures=tuple(
                ConsistencySignature(MemberId(bytes.fromhex(member)), bytes.fromhex(signature))
                for member, signature in document["signatures"]
            ),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(
            "a link that cannot be read", where="link", got=f"{type(error).__name__}: {error}"[:120]
        ) from None
    if any(len(entry.signature) != SIGNATURE_BYTES for entry in transcript.signatures):
        raise InputError("a link with a signature of another length", where="link")
    words = np.frombuffer(content, dtype="<u8", offset=start).astype(np.uint64, copy=False)
    return Link(setup, transcript, words)


def require_follows(link: Link, version: ModelVersion, digest: bytes) -> None:
    """Refuse a link that does not begin at this model.

    Raises:
        PeerViolation: MODEL_CHAIN.
    """
    transcript = link.transcript
    if transcript.model_version != version or transcript.model_digest != digest:
        raise broken_chain(f"a link from model version {version}", f"one from version {transcript.model_version}")


def require_witnessed(link: Link, identities: Mapping[MemberId, bytes], min_cohort: int) -> None:
    """Refuse the link of a round that this member did not see through to its end, unless enough others signed it.

    identities: the admitted members' Ed25519 keys.

    Raises:
        PeerViolation: MODEL_CHAIN: fewer survivors than may be summed, or repeated or unsorted ones.
        IdentityError: too few signatures, or one that fails.
    """
    survivors = link.transcript.survivors
    if len(survivors) < min_cohort or list(survivors) != sorted(set(survivors)):
        raise broken_chain(f"at least {min_cohort} survivors, sorted", str(len(survivors)))
    require_signed(link.transcript, identities, complete_graph_threshold(len(survivors)))


def broken_chain(expected: str, got: str) -> PeerViolation:
    """A model that does not follow from the one before and the published sum."""
    return PeerViolation(
        "the model does not follow from the one before",
        where="coordinator",
        expected=expected,
        got=got,
        hint="the coordinator's store is damaged, or it sends models of its own making",
        reason="MODEL_CHAIN",
    )
