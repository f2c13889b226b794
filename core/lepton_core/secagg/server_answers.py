"""The roster, the delivery and the certificate as each member gets them; the survivor set is the same for all."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import replace
from operator import attrgetter

from lepton_core.ids import MemberId
from lepton_core.secagg.messages import (
    Certificate,
    ConsistencySignature,
    DealtShares,
    Delivery,
    Roster,
    SealedShares,
    ShareDigests,
    ShareMessage,
)
from lepton_core.secagg.server_phases import Agreed, Cohort

#: What lists of shares and digests are sorted by; asked for every dealer of every member.
_holder: Callable[[SealedShares | ShareDigests], MemberId] = attrgetter("holder")


def roster_for(cohort: Cohort, member: MemberId) -> Roster:
    """The whole list of leaves, with the adverts of the member's neighbours."""
    return replace(cohort.roster, adverts=tuple(cohort.adverts[other] for other in cohort.neighbours(member)))


def delivery_for(cohort: Agreed, shares: Mapping[MemberId, ShareMessage], member: MemberId) -> Delivery:
    """What the dealers among the member's neighbours sealed for it, and the model to train on."""
    dealt = []
    for dealer in cohort.dealers(shares, member):
        message = shares[dealer]
        ciphertext = message.sealed[bisect_left(message.sealed, member, key=_holder)].ciphertext
        dealt.append(DealtShares(dealer, ciphertext, message.digests, message.signature))
    return Delivery(tuple(dealt), cohort.model.version, cohort.model.digest)


def signers_for(
    cohort: Cohort, signatures: Mapping[MemberId, ConsistencySignature], member: MemberId
) -> tuple[MemberId, ...]:
    """Whose signatures the member is shown: as many of its neighbours' as it must see, and no more; sorted.

    t in a sparse graph, t - 1 in the complete one, where its own counts. Verifying them is most of a member's work in
    this step, so none is sent that it does not need.
    """
    return tuple(other for other in cohort.neighbours(member) if other in signatures)[: cohort.graph.quorum]


def certificate_for(
    cohort: Cohort, signatures: Mapping[MemberId, ConsistencySignature], member: MemberId
) -> Certificate:
    """Proof to the member that enough of its neighbours were shown the same survivor set."""
    return Certificate(tuple(signatures[other] for other in signers_for(cohort, signatures, member)))


def digests_for(message: ShareMessage, holder: MemberId) -> ShareDigests:
    """What the dealer signed for one of its holders."""
    return message.digests[bisect_left(message.digests, holder, key=_holder)]
