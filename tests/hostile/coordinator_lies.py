"""What a coordinator may lie about, by the name of the job. It has its own keys and code, and nobody else's.

A lie works on the frozen values of `lepton_core`: what an honest coordinator would say goes in, what is said comes out.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle

from lepton_core.chain import encode_link, parse_link
from lepton_core.identity import IdentityKey
from lepton_core.ids import MemberId, digest_of
from lepton_core.job import Job, parse_job
from lepton_core.membership import ListedMember, SignedList, sign
from lepton_core.ports import SystemRandomness
from lepton_core.secagg import client as machine
from lepton_core.secagg.client_checks import Admission
from lepton_core.secagg.messages import (
    Advert,
    Certificate,
    ConsistencySignature,
    DealtShares,
    Delivery,
    InputTrailer,
    Leaf,
    Roster,
    ShareMessage,
    SurvivorSet,
    Unmasking,
)
from lepton_core.secagg.terms import Setup
from lepton_core.session import Published, RoundCommand
from tests.hostile.coordinator_attempts import OtherNumber, Replay, TwoAtOnce, TwoAttempts
from tests.hostile.coordinator_lie import Lie, Say, message_of, without

# Survivors --------------------------------------------------------------------------------------------------------


class OverlappingLists(Lie):
    """Everybody is told that all live, and then that one has dropped out: asked for both kinds of its shares."""

    def message(self, member, number, message):
        return [message, without(message, member)] if isinstance(message, SurvivorSet) else [message]


class AskedAgain(Lie):
    """Who has answered is told of other survivors, and shown another certificate."""

    def __init__(self, say: Say) -> None:
        super().__init__(say)
        self._told: dict[MemberId, list[RoundCommand]] = {}

    def tell(self, member, command):
        if isinstance(message_of(command), SurvivorSet | Certificate):
            self._told.setdefault(member, []).append(command)
        return super().tell(member, command)

    def hear(self, said):
        if isinstance(message_of(said.report), Unmasking):
            for command in self._told.pop(said.member, []):
                message = command.message
                if isinstance(message, SurvivorSet):
                    other = without(message, said.member)
                else:
                    other = Certificate(message.signatures[1:])
                self.say(said.member, replace(command, message=other))
        return [said]


class Equivocation(Lie):
    """The upper three are told that all five live, the lower two that only four do.

    Each group is shown what signatures there are: the upper one those of both, the lower one its own.
    """

    def __init__(self, say: Say) -> None:
        super().__init__(say)
        self._signed: dict[MemberId, ConsistencySignature] = {}
        self._told: dict[MemberId, SurvivorSet] = {}

    def message(self, member, number, message):
        if isinstance(message, SurvivorSet):
            lower = member in message.survivors[:2]
            self._told[member] = SurvivorSet(message.survivors[:4]) if lower else message
            return [self._told[member]]
        return [message]

    def hear(self, said):
        report = said.report
        if not isinstance(message_of(report), ConsistencySignature):
            return [said]
        self._signed[said.member] = report.message
        if len(self._signed) == len(self._told):
            everybody = Certificate(tuple(self._signed[one] for one in sorted(self._signed)))
            for one in sorted(self._signed):
                lower = len(self._told[one].survivors) == 4
                shown = Certificate(everybody.signatures[:2]) if lower else everybody
                self.say(one, RoundCommand(report.job, report.round, shown))
            self._signed, self._told = {}, {}
        return []  # an honest machine would refuse half of them


class ToldDead(Lie):
    """The lowest member is told that everybody lives but itself."""

    def message(self, member, number, message):
        if not isinstance(message, SurvivorSet) or member != message.survivors[0]:
            return [message]
        return [SurvivorSet(message.survivors[1:])]


# Rosters ----------------------------------------------------------------------------------------------------------


class SubstitutedKey(Lie):
    """Each member's first neighbour gets a masking key of the coordinator's, and the leaf that fits it."""

    def message(self, member, number, message):
        if not isinstance(message, Roster):
            return [message]
        forged = replace(message.adverts[0], mask_public=IdentityKey.generate(SystemRandomness()).public)
        leaf = Leaf(forged.member, forged.digest(self.setups[number].setup_id()))
        leaves = tuple(leaf if old.member == leaf.member else old for old in message.leaves)
        return [replace(message, leaves=leaves, adverts=(forged, *message.adverts[1:]))]


class DuplicatedLeaf(Lie):
    """One identity stands in the roster twice."""

    def message(self, member, number, message):
        if not isinstance(message, Roster):
            return [message]
        return [replace(message, leaves=(message.leaves[0], *message.leaves))]


def _invented() -> list[IdentityKey]:
    return [IdentityKey.generate(SystemRandomness()) for _ in range(4)]


class InventedMembers(Lie):
    """Each member finds itself among four whose keys the coordinator has made, every signature right."""

    def message(self, member, number, message):
        if not isinstance(message, Roster):
            return [message]
        setup = self.setups[number]
        adverts = sorted((_advert(setup, key) for key in _invented()), key=lambda advert: advert.member)
        own = next(leaf for leaf in message.leaves if leaf.member == member)
        leaves = [own, *(Leaf(advert.member, advert.digest(setup.setup_id())) for advert in adverts)]
        return [Roster(tuple(sorted(leaves, key=lambda leaf: leaf.member)), message.server_nonce, tuple(adverts))]


def _advert(setup: Setup, key: IdentityKey) -> Advert:
    """An advert as the member's own machine makes it."""
    admission = Admission({key.member: key.public}, setup.terms.membership_digest, 3, 0.0)
    _, (send,) = machine.start(setup, key, admission, SystemRandomness())
    return send.message


class InventedList(Lie):
    """The list of members that goes with the job names four more, and the coordinator has signed it."""

    def match(self, request):
        listed = SignedList.from_json(request.membership_list).members
        more = [
            ListedMember(owner=f"owner-{place}", identity=key.public.hex()) for place, key in enumerate(_invented())
        ]
        members = tuple(sorted((*listed.members, *more), key=lambda entry: entry.owner))
        forged = sign(listed.model_copy(update={"members": members}), IdentityKey.generate(SystemRandomness()))
        return replace(request, membership_list=forged.to_json())


# Terms and shares -------------------------------------------------------------------------------------------------


class LowerTerms(Lie):
    """Each member is asked under terms that the job does not have, each time others."""

    CHANGES = (
        {"min_cohort": 3},
        {"corruption": 0.0},
        {"neighbours": 4, "threshold": 1},
        {"dropout": 0.5},
        {"membership_digest": bytes(32)},
    )

    def __init__(self, say: Say) -> None:
        super().__init__(say)
        self._changes = cycle(self.CHANGES)

    def invite(self, member, setup):
        return [replace(setup, terms=replace(setup.terms, **next(self._changes)))]


class BaredJob(Lie):
    """Everybody is asked for the same job without secure aggregation."""

    def match(self, request):
        document = parse_job(request.canonical_job).model_dump()
        document["aggregation"] |= {"secure": False, "profile": "default"}
        return replace(request, canonical_job=Job.model_validate(document).canonical())


class TamperedDelivery(Lie):
    """The lowest member gets one dealer's sealed shares with a bit turned over."""

    def message(self, member, number, message):
        if not isinstance(message, Delivery) or any(dealt.dealer < member for dealt in message.dealt):
            return [message]
        first, *rest = message.dealt
        forged = replace(first, ciphertext=self.forge(member, first))
        return [replace(message, dealt=(forged, *rest))]

    def forge(self, member: MemberId, dealt: DealtShares) -> bytes:
        """The ciphertext that comes instead."""
        return bytes([dealt.ciphertext[0] ^ 1]) + dealt.ciphertext[1:]


class ReflectedDelivery(TamperedDelivery):
    """The lowest member gets back what it sealed for a dealer, as if the dealer had sealed it."""

    def __init__(self, say: Say) -> None:
        super().__init__(say)
        self._sealed: dict[tuple[MemberId, MemberId], bytes] = {}

    def hear(self, said):
        message = message_of(said.report)
        if isinstance(message, ShareMessage):
            self._sealed |= {(message.dealer, entry.holder): entry.ciphertext for entry in message.sealed}
        return [said]

    def forge(self, member, dealt):
        return self._sealed[member, dealt.dealer]


class HeldCertificates(Lie):
    """Honest, but slow: the certificates wait until somebody's input comes after the freeze."""

    def __init__(self, say: Say) -> None:
        super().__init__(say)
        self._held: list[tuple[MemberId, RoundCommand]] | None = []
        self._frozen = False

    def tell(self, member, command):
        message = message_of(command)
        self._frozen = self._frozen or isinstance(message, SurvivorSet)
        if isinstance(message, Certificate) and self._held is not None:
            self._held.append((member, command))
            return []
        return super().tell(member, command)

    def hear(self, said):
        if self._frozen and self._held is not None and isinstance(message_of(said.report), InputTrailer):
            for waiting, command in self._held:
                self.say(waiting, command)
            self._held = None
        return [said]


# Models -----------------------------------------------------------------------------------------------------------


class OtherModel(Lie):
    """Everybody is asked to train on one model of the coordinator's own making."""

    def message(self, member, number, message):
        return [replace(message, model_digest=bytes(32)) if isinstance(message, Delivery) else message]


class OtherSum(Lie):
    """The lower two are told another sum of the first round than the others.

    Its words stand in reverse: lanes that members can have sent, and so far from the sum that the model must differ.
    One more in every word can fall on padding alone, and change no model.
    """

    def publish(self, member, number, published):
        setup = self.setups[number]
        link = parse_link(published.content, setup.job, setup.terms)
        if member not in link.transcript.survivors[:2]:
            return published
        content = encode_link(replace(link, words=link.words[::-1].copy()))
        return Published(digest_of(content), content)


#: By the name of the job that is lied to.
LIES: dict[str, type[Lie]] = {
    "overlapping-lists": OverlappingLists,
    "asked-again": AskedAgain,
    "equivocation": Equivocation,
    "told-dead": ToldDead,
    "substituted-key": SubstitutedKey,
    "duplicated-leaf": DuplicatedLeaf,
    "invented-members": InventedMembers,
    "invented-list": InventedList,
    "lower-terms": LowerTerms,
    "bared-job": BaredJob,
    "tampered-delivery": TamperedDelivery,
    "reflected-delivery": ReflectedDelivery,
    "upload-after-freeze": HeldCertificates,
    "other-model": OtherModel,
    "other-sum": OtherSum,
    "two-attempts": TwoAttempts,
    "other-number": OtherNumber,
    "two-at-once": TwoAtOnce,
    "replay": Replay,
}
