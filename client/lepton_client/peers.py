"""Whom this owner accepts as peers: the federation's accepted list, or identities pinned one by one."""

from __future__ import annotations

from lepton_client.policy import Peers
from lepton_core.errors import IdentityError, PolicyRefusal
from lepton_core.ids import MemberId, derive_member_id
from lepton_core.membership import SignedList, verify
from lepton_core.secagg.client_checks import Admission


def require_accepted(peers: Peers, offered: SignedList, accepted: SignedList | None, now: float) -> None:
    """Refuse a list that the owner has not accepted; with pinned members there is nothing to accept.

    Raises:
        IdentityError: the federation key did not sign it, or it has expired.
        PolicyRefusal: MEMBERSHIP_CHANGED or MEMBERSHIP_NOT_ACCEPTED; the owner has to look at the fingerprints.
    """
    if peers.federation_key is None:
        return
    verify(offered, bytes.fromhex(peers.federation_key), now=now, at_least_version=1)
    if accepted is None:
        raise _not_accepted("no membership list was accepted yet", "MEMBERSHIP_NOT_ACCEPTED")
    if accepted.members.digest() != offered.members.digest():
        raise _not_accepted("the membership list has changed", "MEMBERSHIP_CHANGED")


def derive_admission(peers: Peers, matched: SignedList, accepted: SignedList | None, now: float) -> Admission:
    """Who may be in a round of a job that was matched under a list, as things stand now.

    A member that the owner's newest accepted list no longer holds is out, even in a job matched before.

    Raises:
        IdentityError: the list has expired, or its signature does not hold.
        PolicyRefusal: there is no accepted list.
    """
    members = dict(matched.members.admitted())
    if peers.members is not None:
        pinned = {derive_member_id(bytes.fromhex(key)) for key in peers.members}
        members = _only(members, pinned)
    if peers.federation_key is not None:
        verify(matched, bytes.fromhex(peers.federation_key), now=now, at_least_version=1)
        if accepted is None:
            raise _not_accepted("no membership list was accepted yet", "MEMBERSHIP_NOT_ACCEPTED")
        members = _only(members, set(accepted.members.admitted()))
    return Admission(
        members=members,
        membership_digest=matched.members.digest(),
        min_cohort=peers.minimum_cohort,
        corruption=peers.corruption,
    )


def require_listed(admission: Admission, member: MemberId) -> None:
    """Refuse to take part among peers that would not know this owner.

    Raises:
        IdentityError: NOT_LISTED.
    """
    if member not in admission.members:
        raise IdentityError(
            "this owner's own identity is not among the admitted peers",
            where=f"member {member.hex()}",
            expected="its identity on the membership list, or pinned",
            hint="give identity.json to the federation, and accept the list it signs",
            reason="NOT_LISTED",
        )


def _only(members: dict[MemberId, bytes], allowed: set[MemberId]) -> dict[MemberId, bytes]:
    return {member: public for member, public in members.items() if member in allowed}


def _not_accepted(message: str, reason: str) -> PolicyRefusal:
    return PolicyRefusal(
        message,
        where="policy.peers.federation_key",
        expected="the list this owner has accepted",
        hint="compare the fingerprints, then `lepton client accept` the signed list",
        reason=reason,
    )
