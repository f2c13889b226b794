"""Which masked inputs a round takes: from whom, when, and of what length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lepton_core.errors import CodecError, InputError, PeerViolation
from lepton_core.ids import Digest, MemberId, RoundNumber, digest_of
from lepton_core.secagg.messages import InputTrailer
from lepton_core.session import INLINE_BYTES
from lepton_pool.plain import parse_plain
from lepton_server.jobs.phases import Facts, Phase, Rounding
from lepton_server.jobs.relay import may_speak
from lepton_server.rounds.sums import RunningSums
from lepton_server.store.port import Artifacts

#: True of an artifact that jobs live on or have published: as a masked input, it would be deleted with its round.
Kept = Callable[[Digest], bool]


def require_upload(facts: Facts | None, phase: Phase | None, member: MemberId, number: RoundNumber, size: int) -> None:
    """Return if the member may upload a masked input of this size to this round now; None means no running job.

    Raises:
        PeerViolation: not in that round, or the payload has another length.
    """
    where = f"member {member.hex()}, round {number}"
    if facts is None or not isinstance(phase, Rounding) or phase.record.number != number:
        raise PeerViolation("an upload to a round that does not run", where=where, reason="ROUND_OVER")
    if member not in phase.record.cohort:
        raise PeerViolation("an upload by a member that is not in the round", where=where, reason="NOT_IN_ROUND")
    if size != facts.terms.payload_bytes:
        raise PeerViolation(
            "an upload of another length",
            where=where,
            expected=f"{facts.terms.payload_bytes} bytes",
            got=f"{size} bytes",
            reason="WRONG_LENGTH",
        )


def require_payload(facts: Facts, artifacts: Artifacts, trailer: InputTrailer, kept: Kept) -> None:
    """Return if the trailer's payload was uploaded, whole, and is no artifact that is `kept` for jobs.

    Raises:
        InputError: it was not.
        PeerViolation: it has another length, or is somebody else's artifact.
    """
    digest = Digest(trailer.payload_digest.hex())
    if kept(digest):
        raise PeerViolation(
            "an artifact that is no masked input",
            where=f"member {trailer.member.hex()}",
            got=f"artifact {digest}",
            reason="NO_PAYLOAD",
        )
    if not artifacts.claim(digest):
        raise InputError("the trailer's payload was not uploaded", where=f"artifact {digest}", reason="NO_PAYLOAD")
    size = len(artifacts.get(digest))
    if size != facts.terms.payload_bytes or trailer.payload_bytes != size:
        raise PeerViolation(
            "a masked input of another length",
            where=f"member {trailer.member.hex()}",
            expected=f"{facts.terms.payload_bytes} bytes",
            got=f"{size} bytes",
            reason="WRONG_LENGTH",
        )


@dataclass(frozen=True)
class Input:
    """A member's trailer, and the masked words that came with it, if any did."""

    round: RoundNumber
    trailer: InputTrailer
    payload: bytes = field(repr=False)


def took_payload(
    facts: Facts,
    phase: Phase,
    came: Input,
    *,
    sums: RunningSums,
    artifacts: Artifacts,
    kept: Kept,
) -> bool:
    """True if the input's words came with it and wait in memory; False if they are in the artifact store or the sum.

    Raises:
        InputError, PeerViolation: they are nowhere, or not what the trailer says.
    """
    trailer = came.trailer
    digest = Digest(trailer.payload_digest.hex())
    if isinstance(phase, Rounding) and phase.record.payloads.get(trailer.member) == digest:
        return False  # a repetition: the words are in the sum, and may be gone
    if not facts.job.aggregation.secure:
        if _takes_update(phase, came):
            _take_update(facts, came, artifacts, kept)
        return False
    if not came.payload:
        require_payload(facts, artifacts, trailer, kept)
        return False
    require_inline(facts, trailer, came.payload)
    setup = facts.setup(came.round)
    if isinstance(phase, Rounding) and phase.record.number == came.round and may_speak(phase.record, trailer.member):
        sums.hold(setup, digest, came.payload)
    return sums.holds(setup, digest)


def require_inline(facts: Facts, trailer: InputTrailer, payload: bytes) -> None:
    """Return if masked words that came beside their trailer are what it says.

    Raises:
        PeerViolation: another length or hash.
    """
    size, digest = facts.terms.payload_bytes, digest_of(payload)
    if not len(payload) == trailer.payload_bytes == size or size > INLINE_BYTES:
        raise PeerViolation(
            "a masked input of another length",
            where=f"member {trailer.member.hex()}",
            expected=f"{size} bytes, and at most {INLINE_BYTES} within a message",
            got=f"{len(payload)} bytes",
            reason="WRONG_LENGTH",
        )
    if digest != trailer.payload_digest.hex():
        raise PeerViolation(
            "other masked words than the trailer names",
            where=f"member {trailer.member.hex()}",
            expected=f"SHA-256 {trailer.payload_digest.hex()}",
            got=f"SHA-256 {digest}",
            reason="NO_PAYLOAD",
        )


def _takes_update(phase: Phase, came: Input) -> bool:
    """True if the round waits for this member's update; what else comes is for the round's machine to refuse."""
    return (
        isinstance(phase, Rounding)
        and phase.record.number == came.round
        and may_speak(phase.record, came.trailer.member)
        and came.trailer.member not in phase.record.payloads
    )


def _take_update(facts: Facts, came: Input, artifacts: Artifacts, kept: Kept) -> None:
    """Put an update in the plain into the store, or find it there; its content is looked at, as nothing hides it.

    Raises:
        InputError, PeerViolation: it is nowhere, or not what the trailer says, or no update.
    """
    trailer = came.trailer
    if came.payload:
        require_inline(facts, trailer, came.payload)
    else:
        require_payload(facts, artifacts, trailer, kept)
    try:
        parse_plain(facts.job, came.payload or artifacts.get(Digest(trailer.payload_digest.hex())))
    except CodecError as error:
        raise PeerViolation(
            error.message,
            where=f"member {trailer.member.hex()}",
            expected=error.expected,
            got=error.got,
            reason="BAD_UPDATE",
        ) from None
    if came.payload:
        artifacts.put(came.payload)
