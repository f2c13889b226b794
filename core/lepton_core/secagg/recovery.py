"""Step 5's small work: rebuild secrets from t shares, find who lied, and derive the masks to take away."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lepton_core.ids import MemberId
from lepton_core.secagg.agreement import Secret, commit_seed, derive_mask_private, exchange, public_key
from lepton_core.secagg.masks import MaskStream, negated, pair_streams, self_streams
from lepton_core.secagg.messages import Advert, Unmasking
from lepton_core.secagg.shamir import combine, encode_element, parse_element, weights_at_zero
from lepton_core.secagg.terms import Terms
from lepton_core.secagg.unmask import UnmaskPlan


@dataclass(frozen=True)
class Recovery:
    """What step 5 starts from; everything in it was checked when it was received."""

    setup_id: bytes
    sid: bytes
    terms: Terms
    threshold: int
    adverts: Mapping[MemberId, Advert]
    #: Holders of each dealer's shares in order; the Shamir x is 1 + index.
    holders: Mapping[MemberId, tuple[MemberId, ...]]
    survivors: Sequence[MemberId]
    #: U1 of each survivor.
    paired: Mapping[MemberId, Sequence[MemberId]]
    unmaskings: Mapping[MemberId, Unmasking]

    @property
    def gone(self) -> tuple[MemberId, ...]:
        """Members outside the sum with whom some survivor has a pair mask; sorted."""
        alive = set(self.survivors)
        return tuple(sorted({other for member in self.survivors for other in self.paired[member]} - alive))


@dataclass(frozen=True)
class BadDealer:
    """Shares that match the dealer's own digests rebuild a secret that does not match its advert."""

    dealer: MemberId


def shares_short(recovery: Recovery) -> dict[MemberId, int]:
    """How many shares are still missing, by dealer; empty when every secret that is needed can be rebuilt."""
    counts = dict.fromkeys((*recovery.survivors, *recovery.gone), 0)
    for unmasking in recovery.unmaskings.values():
        for entry in unmasking.revealed:
            counts[entry.dealer] += 1
    return {dealer: recovery.threshold - count for dealer, count in counts.items() if count < recovery.threshold}


def derive_plan(recovery: Recovery) -> UnmaskPlan | BadDealer:
    """Rebuild each secret from exactly `threshold` shares, check it against its advert, and derive what to remove.

    No subset search: shares were checked against the dealer's digests, so a mismatch is the dealer's doing.
    """
    rebuild = _Rebuilder(recovery)
    streams: list[MaskStream] = []
    for member in recovery.survivors:
        seed = rebuild.secret(member)
        if not hmac.compare_digest(
            commit_seed(recovery.setup_id, member, seed), recovery.adverts[member].seed_commitment
        ):
            return BadDealer(member)
        streams.extend(negated(self_streams(seed, recovery.sid, member, recovery.terms)))
    pair_masks = 0
    partners: dict[MemberId, list[MemberId]] = {dealer: [] for dealer in recovery.gone}
    for member in recovery.survivors:
        for other in recovery.paired[member]:
            if other in partners:
                partners[other].append(member)
    for dealer, members in partners.items():
        private = derive_mask_private(rebuild.secret(dealer), recovery.setup_id)
        if public_key(private) != recovery.adverts[dealer].mask_public:
            return BadDealer(dealer)
        for member in members:
            shared = exchange(private, recovery.adverts[member].mask_public, who=f"member {member.hex()}")
            streams.extend(negated(pair_streams(shared, recovery.sid, member, dealer, recovery.terms)))
        pair_masks += len(members)
    return UnmaskPlan(tuple(streams), len(recovery.survivors), pair_masks, len(partners))


class _Rebuilder:
    """Secrets from the first `threshold` holders that answered; Lagrange weights are shared between dealers."""

    def __init__(self, recovery: Recovery) -> None:
        self._recovery = recovery
        self._weights: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._shares: dict[MemberId, dict[MemberId, bytes]] = {}
        for holder, unmasking in sorted(recovery.unmaskings.items()):
            for entry in unmasking.revealed:
                self._shares.setdefault(entry.dealer, {})[holder] = entry.share

    def secret(self, dealer: MemberId) -> Secret:
        order = {holder: 1 + index for index, holder in enumerate(self._recovery.holders[dealer])}
        used = sorted(self._shares[dealer])[: self._recovery.threshold]
        xs = tuple(order[holder] for holder in used)
        if xs not in self._weights:
            self._weights[xs] = weights_at_zero(xs)
        shares = [parse_element(self._shares[dealer][holder]) for holder in used]
        return Secret(encode_element(combine(shares, self._weights[xs])))
