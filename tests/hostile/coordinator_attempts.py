"""A coordinator that asks more than once on one model: in a second round, in two rounds at once, after a restart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lepton_core.ids import MemberId, ModelVersion, RoundNumber
from lepton_core.secagg.messages import (
    Advert,
    Certificate,
    ConsistencySignature,
    DealtShares,
    Delivery,
    InputTrailer,
    ShareMessage,
    SurvivorSet,
    Unmasking,
)
from lepton_core.session import Refusal, RoundCommand, RoundRefusal, RoundReport, ServerCommand
from lepton_server.jobs.events import Reported
from tests.hostile.coordinator_lie import Lie, Say, message_of, without


def _gone(said: Reported) -> Reported:
    """As if the member had left the round instead of saying this."""
    return replace(said, report=RoundRefusal(said.report.job, said.report.round, Refusal("aborted", "GONE", "")))


class TwoAttempts(Lie):
    """Whoever answers is said to have left, so that the round aborts; then all are asked again on the same model."""

    asks_again = True

    def hear(self, said):
        return [_gone(said) if isinstance(message_of(said.report), Unmasking) else said]


class OtherNumber(TwoAttempts):
    """As two attempts, and calls the model another version the second time."""

    def message(self, member, number, message):
        again = number > 1 and isinstance(message, Delivery)
        return [replace(message, model_version=ModelVersion(message.model_version + 1)) if again else message]


class TwoAtOnce(Lie):
    """The keys of round 2 are made while round 1 runs; everybody is asked in both on the same model.

    Round 2 gets the model, then round 1 its certificates; then round 2 is run to its end beside the honest machine.
    """

    def __init__(self, say: Say) -> None:
        super().__init__(say)
        self._model: Delivery | None = None
        self._certificates: dict[MemberId, RoundCommand] = {}
        #: Of round 2, by kind of message.
        self._heard: dict[type, dict[MemberId, object]] = {}

    def tell(self, member, command):
        message = message_of(command)
        if isinstance(message, Delivery):
            self._model = message
        if isinstance(message, Certificate):
            self._certificates[member] = command
            self._ask_in_both()
            return []
        return super().tell(member, command)

    def hear(self, said):
        report = said.report
        if getattr(report, "round", 1) == 1 or isinstance(report, RoundRefusal):
            return [said]
        message = report.message
        heard = self._heard.setdefault(type(message), {})
        heard[said.member] = message
        everybody = sorted(heard) if len(heard) == len(self._heard[Advert]) else []
        match message:
            case ShareMessage():
                self._ask_in_both()
            case InputTrailer():
                self._tell_all(report, everybody, SurvivorSet(tuple(everybody)))
            case ConsistencySignature():
                self._tell_all(report, everybody, Certificate(tuple(heard[member] for member in everybody)))
            case Unmasking():
                ends = replace(report, round=RoundNumber(1))
                return [_gone(Reported(member, ends)) for member in everybody]
        return [said] if isinstance(message, Advert | ShareMessage) else []

    def _ask_in_both(self) -> None:
        shares = self._heard.get(ShareMessage, {})
        if not len(shares) == len(self._certificates) == len(self._heard.get(Advert, {})):
            return
        for member, first in self._certificates.items():
            dealt = tuple(
                DealtShares(dealer, entry.ciphertext, message.digests, message.signature)
                for dealer, message in sorted(shares.items())
                for entry in message.sealed
                if entry.holder == member
            )
            second = replace(first, round=RoundNumber(2), message=replace(self._model, dealt=dealt))
            self.say(member, second)
            self.say(member, first)

    def _tell_all(self, report: RoundReport, everybody: Sequence[MemberId], message: SurvivorSet | Certificate) -> None:
        for member in everybody:
            self.say(member, RoundCommand(report.job, report.round, message))


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
        if isinstance(message_of(said.report), Unmasking):
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
            survivors = message_of(command)
            again = command
            if isinstance(survivors, SurvivorSet):
                again = replace(command, message=without(survivors, member))
            self.say(member, again)
