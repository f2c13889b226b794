"""What a finished round leaves: the plan that unmasks its sum, and the signed transcript for publication."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lepton_core.errors import IdentityError
from lepton_core.identity import require_signature
from lepton_core.ids import MemberId, ModelVersion
from lepton_core.secagg.messages import ConsistencySignature
from lepton_core.secagg.steps import Step
from lepton_core.secagg.terms import derive_sid, survivors_digest
from lepton_core.secagg.unmask import UnmaskPlan


@dataclass(frozen=True)
class Transcript:
    """Who signed that the round's sum is over exactly these members. Nothing in it is secret."""

    setup_id: bytes
    roster_root: bytes
    model_version: ModelVersion
    model_digest: bytes
    #: Sorted.
    survivors: tuple[MemberId, ...]
    #: Sorted by member; each over `survivors_digest(sid, survivors)`.
    signatures: tuple[ConsistencySignature, ...]

    @property
    def sid(self) -> bytes:
        """The round's id, which binds setup, roster and model."""
        return derive_sid(self.setup_id, self.roster_root, self.model_digest)


@dataclass(frozen=True)
class DroppedMember:
    """A member that took no part to the end. Its input is in the sum only if it was dropped after the input step."""

    member: MemberId
    step: Step
    reason: str


@dataclass(frozen=True)
class RoundResult:
    """A round that ended with a sum over exactly `transcript.survivors`."""

    transcript: Transcript
    dropped: tuple[DroppedMember, ...]
    plan: UnmaskPlan
    #: SHA-256 of each survivor's stored payload, by member id.
    payload_digests: Mapping[MemberId, bytes]

    @property
    def survivors(self) -> tuple[MemberId, ...]:
        """The members whose inputs are in the sum; sorted."""
        return self.transcript.survivors


def require_signed(transcript: Transcript, identities: Mapping[MemberId, bytes], at_least: int) -> None:
    """Refuse a transcript that fewer than `at_least` of the admitted survivors signed.

    Raises:
        IdentityError: a signer that is no admitted survivor or signs twice, a signature that fails, or too few.
    """
    digest = survivors_digest(transcript.sid, transcript.survivors)
    signers: set[MemberId] = set()
    for entry in transcript.signatures:
        who = f"member {entry.member.hex()}"
        if entry.member not in transcript.survivors or entry.member not in identities or entry.member in signers:
            raise IdentityError("a signer that is no admitted survivor, or signs twice", where=who)
        require_signature(identities[entry.member], entry.signature, digest, who=who, what="survivor set")
        signers.add(entry.member)
    if len(signers) < at_least:
        raise IdentityError(
            "too few members signed the transcript", expected=f"at least {at_least}", got=str(len(signers))
        )
