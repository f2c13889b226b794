"""Why the coordinator refuses a message or ends a round: the errors it tells, without state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lepton_core.errors import AbortedError, ConflictError, IdentityError, PeerViolation
from lepton_core.ids import MemberId
from lepton_core.secagg.server_events import Dropped
from lepton_core.secagg.steps import Step
from lepton_core.secagg.terms import Setup


def different_repetition(member: MemberId, event: str) -> PeerViolation:
    """A second, different message; the first counts."""
    return PeerViolation(
        "a second, different message for one step",
        where=f"member {member.hex()}",
        got=event,
        reason="DIFFERENT_REPETITION",
    )


def late(member: MemberId, event: str) -> ConflictError:
    """A message that comes after its step."""
    return ConflictError("a message for a step that is over", where=f"member {member.hex()}", got=event, reason="LATE")


def early(member: MemberId, event: str) -> PeerViolation:
    """A message that comes before its step."""
    return PeerViolation("a message before its step", where=f"member {member.hex()}", got=event, reason="OUT_OF_ORDER")


def stranger(member: MemberId) -> IdentityError:
    """A member that this step does not expect."""
    return IdentityError(
        "not expected in this step of the round", where=f"member {member.hex()}", reason="NOT_EXPECTED"
    )


def too_few(which: Step, setup: Setup, gone: Sequence[Dropped], answered: int, least: int) -> AbortedError:
    """The end of a round for want of members; names the missing."""
    return AbortedError(
        f"too few members completed step {which.name} of round {setup.round} of {setup.job}",
        where=f"step {which.name}",
        expected=f"at least {least}",
        got=f"{answered}; missing: {', '.join(dropped.member.hex() for dropped in gone)}",
        hint="the round's number is not used again; the next round can try with the members that are there",
        reason="TOO_FEW_MEMBERS",
    )


def unrecoverable_masks(setup: Setup, dealers: Iterable[MemberId], threshold: int) -> AbortedError:
    """The end of a round in whose sum a mask would stay; names whose."""
    return AbortedError(
        f"the masks of a member cannot be taken away in round {setup.round} of {setup.job}",
        where=", ".join(f"member {dealer.hex()}" for dealer in sorted(dealers)),
        expected=f"{threshold} members with a share of each",
        got="fewer, since members were lost, or said that the shares dealt to them were bad",
        hint="if it happens again with the same member, leave it out",
        reason="UNRECOVERABLE",
    )


def bad_dealer(dealer: MemberId) -> PeerViolation:
    """The end of a round by a dealer that shared out another secret than its own."""
    return PeerViolation(
        "a dealer's shares are all as it signed them, and rebuild another secret than it advertised",
        where=f"member {dealer.hex()}",
        hint="the round is over; leave this member out of the next one",
        reason="BAD_DEALER",
    )
