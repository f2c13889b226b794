"""The roster and the delivery as each member gets them; the other two messages are the same for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from lepton_core.ids import MemberId
from lepton_core.secagg.messages import DealtShares, Delivery, Roster, ShareMessage
from lepton_core.secagg.server_phases import Cohort


def roster_for(cohort: Cohort, member: MemberId) -> Roster:
    """The whole list of leaves, with the adverts of the member's neighbours."""
    return replace(cohort.roster, adverts=tuple(cohort.adverts[other] for other in cohort.neighbours(member)))


def delivery_for(cohort: Cohort, shares: Mapping[MemberId, ShareMessage], member: MemberId) -> Delivery:
    """What the dealers among the member's neighbours sealed for it, and the model to train on."""
    dealt = []
    for dealer in cohort.dealers(shares, member):
        message = shares[dealer]
        ciphertext = next(entry.ciphertext for entry in message.sealed if entry.holder == member)
        dealt.append(DealtShares(dealer, ciphertext, message.digests, message.signature))
    return Delivery(tuple(dealt), cohort.opening.model_version, cohort.opening.model_digest)
