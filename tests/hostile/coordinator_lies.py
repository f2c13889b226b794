"""What a coordinator may lie about, by the name of the job. It has its own keys and code, and nobody else's.

A lie works on the frozen values of `lepton_core`: what an honest coordinator would say goes in, what is said comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle

import numpy as np

from lepton_core.chain import encode_link, parse_link
from lepton_core.identity import IdentityKey
from lepton_core.ids import MemberId, ModelVersion, RoundNumber, digest_of
from lepton_core.membership import ListedMember, SignedList, sign
from lepton_core.ports import SystemRandomness
from lepton_core.secagg import client as machine
from lepton_core.secagg.client_checks import Admission
from lepton_core.secagg.messages import (
    Advert,
    Certificate,
    ConsistencySignature,
    Delivery,
    InputTrailer,
    Leaf,
    Roster,
    SurvivorSet,
    Unmasking,
)
from lepton_core.secagg.terms import Setup
from lepton_core.session import (
    MatchRequest,
    Published,
    Refusal,
    RoundClosed,
    RoundCommand,
    RoundInvite,
    RoundRefusal,
    ServerCommand,
)
from lepton_server.jobs.events import Reported

Say = Callable[[MemberId, ServerCommand], None]


class Lie:
    """How one job is lied to; this one not at all."""

    #: True: members that have answered on a model version are asked on it again.
    asks_again = False

    def __init__(self, say: Say) -> None:
        #: Tells a connected member something, whatever an honest coordinator would do.
        self.say = say
        self.setups: dict[RoundNumber, Setup] = {}

    def tell(self, member: MemberId, command: ServerCommand) -> Sequence[ServerCommand]:
        """What is told instead of this command."""
        match command:
            case RoundInvite(setup):
                self.setups[setup.round] = setup
                return [replace(command, setup=setup) for setup in self.invite(member, setup)]
            case RoundCommand(round=number, message=message):
                return [replace(command, message=forged) for forged in self.message(member, number, message)]
            case MatchRequest():
                return [self.match(command)]
            case RoundClosed(published=Published()):
                return [replace(command, published=self.publish(member, command.round, command.published))]
            case _:
                return [command]

    def match(self, request: MatchRequest) -> MatchRequest:
        """What is asked instead of a match request."""
        return request

    def invite(self, member: MemberId, setup: Setup) -> Sequence[Setup]:
        """What is proposed instead of these terms."""
        return [setup]

    def message(self, member: MemberId, number: RoundNumber, message: object) -> Sequence[object]:
        """What is told instead of this message of a round."""
        return [message]

    def publish(self, member: MemberId, number: RoundNumber, published: Published) -> Published:
        """What is published of a completed round instead."""
        return published

    def hear(self, said: Reported) -> Sequence[Reported]:
        """What the coordinator's own machines are let know of a report."""
        return [said]

    def welcomed(self, member: MemberId) -> None:
        """The member has opened a session."""


def _message(said: object) -> object:
    """The message of a round in a command or report; None if there is none."""
    return getattr(said, "message", None)


def _without(survivors: SurvivorSet, member: MemberId) -> SurvivorSet:
    """The set as if another one than `member` had dropped out."""
    gone = next(other for other in survivors.survivors if other != member)
    return SurvivorSet(tuple(other for other in survivors.survivors if other != gone))


# Survivors --------------------------------------------------------------------------------------------------------


class OverlappingLists(Lie):
    """Everybody is told that all live, and then that one has dropped out: asked for both kinds of its shares."""

    def message(self, member, number, message):
        return [message, _without(message, member)] if isinstance(message, SurvivorSet) else [message]


class AskedAgain(Lie):
    """Who has answered is told of other survivors, and shown another certificate."""

    def __init__(self, say: Say) -> None:
        super().__init__(say)
        self._told: dict[MemberId, list[RoundCommand]] = {}

    def tell(self, member, command):
        if isinstance(_message(command), SurvivorSet | Certificate):
            self._told.setdefault(member, []).append(command)
        return super().tell(member, command)

    def hear(self, said):
        if isinstance(_message(said.report), Unmasking):
            for command in self._told.pop(said.member, []):
                message = command.message
                if isinstance(message, SurvivorSet):
                    other = _without(message, said.member)
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
        if not isinstance(_message(report), ConsistencySignature):
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
        return (
            [replace(message, leaves=(message.leaves[0], *message.leaves))]
            if isinstance(message, Roster)
            else [message]
        )


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


class TamperedDelivery(Lie):
    """The first member of the roster gets one dealer's sealed shares with a bit turned over."""

    def message(self, member, number, message):
        if not isinstance(message, Delivery) or any(dealt.dealer < member for dealt in message.dealt):
            return [message]
        first = message.dealt[0]
        turned = replace(first, ciphertext=bytes([first.ciphertext[0] ^ 1]) + first.ciphertext[1:])
        return [replace(message, dealt=(turned, *message.dealt[1:]))]


class HeldCertificates(Lie):
    """Honest, but slow: the certificates wait until somebody's input comes after the freeze."""

    def __init__(self, say: Say) -> None:
        super().__init__(say)
        self._held: list[tuple[MemberId, RoundCommand]] | None = []
        self._frozen = False

    def tell(self, member, command):
        message = _message(command)
        self._frozen = self._frozen or isinstance(message, SurvivorSet)
        if isinstance(message, Certificate) and self._held is not None:
            self._held.append((member, command))
            return []
        return super().tell(member, command)

    def hear(self, said):
        if self._frozen and self._held is not None and isinstance(_message(said.report), InputTrailer):
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
    """The lower two are told another sum of the first round than the others, each word one more."""

    def publish(self, member, number, published):
        setup = self.setups[number]
        link = parse_link(published.content, setup.job, setup.terms)
        if member not in link.transcript.survivors[:2]:
            return published
        content = encode_link(replace(link, words=link.words + np.uint64(1)))
        return Published(digest_of(content), content)


# Attempts ---------------------------------------------------------------------------------------------------------


def _gone(said: Reported) -> Reported:
    """As if the member had left the round instead of saying this."""
    return replace(said, report=RoundRefusal(said.report.job, said.report.round, Refusal("aborted", "GONE", "")))


class TwoAttempts(Lie):
    """Whoever answers is said to have left, so that the round aborts; then all are asked again on the same model."""

    asks_again = True

    def hear(self, said):
        return [_gone(said) if isinstance(_message(said.report), Unmasking) else said]


class OtherNumber(TwoAttempts):
    """As two attempts, and calls the model another version the second time."""

    def message(self, member, number, message):
        again = number > 1 and isinstance(message, Delivery)
        return [replace(message, model_version=ModelVersion(message.model_version + 1)) if again else message]


class Replay(Lie):
    """Keeps all answers back; who comes back after its answer is told its whole round again, with one survivor less.

    Once it has refused, the round is let abort as in two attempts, and all are asked again on the same model.
    """

    asks_again = True

    def __init__(self, say: Say) -> None:
        super().__init__(say)
        self._told: dict[MemberId, list[ServerCommand]] = {}
        self._answers: dict[MemberId, Reported] = {}
        self._replayed = False

    def tell(self, member, command):
        if member not in self._answers:
            self._told.setdefault(member, []).append(command)
        return super().tell(member, command)

    def hear(self, said):
        if isinstance(_message(said.report), Unmasking):
            self._answers[said.member] = said
            return []
        if self._replayed and isinstance(said.report, RoundRefusal):
            answers, self._answers = self._answers, {}
            return [said, *map(_gone, answers.values())]
        return [said]

    def welcomed(self, member):
        if member not in self._answers:
            return
        self._replayed = True
        for command in self._told.pop(member):
            survivors = _message(command)
            again = command
            if isinstance(survivors, SurvivorSet):
                again = replace(command, message=_without(survivors, member))
            self.say(member, again)


#: By the name of the job that is lied to.
LIES: dict[str, type[Lie]] = {
    "overlapping-lists": OverlappingLists,
    "asked-again": AskedAgain,
    "equivocation": Equivocation,
    "substituted-key": SubstitutedKey,
    "duplicated-leaf": DuplicatedLeaf,
    "invented-members": InventedMembers,
    "invented-list": InventedList,
    "lower-terms": LowerTerms,
    "tampered-delivery": TamperedDelivery,
    "upload-after-freeze": HeldCertificates,
    "other-model": OtherModel,
    "other-sum": OtherSum,
    "two-attempts": TwoAttempts,
    "other-number": OtherNumber,
    "replay": Replay,
}
