"""A whole round in memory, for documentation and tests: every member's machine, the coordinator's, and no network."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from lepton_core.errors import InputError, LeptonError
from lepton_core.identity import IdentityKey
from lepton_core.ids import JobId, MemberId, ModelVersion, RoundNumber
from lepton_core.ports import Randomness
from lepton_core.ring import Words
from lepton_core.secagg import client, server
from lepton_core.secagg import client_events as told
from lepton_core.secagg import server_events as heard
from lepton_core.secagg.client_checks import Admission
from lepton_core.secagg.client_phases import Phase as MemberPhase
from lepton_core.secagg.graph import choose_parameters
from lepton_core.secagg.masks import split_groups
from lepton_core.secagg.messages import (
    Advert,
    Certificate,
    ConsistencySignature,
    Delivery,
    InputTrailer,
    MemberMessage,
    Roster,
    ServerMessage,
    ShareMessage,
    SurvivorSet,
    Unmasking,
)
from lepton_core.secagg.server_phases import BoundModel
from lepton_core.secagg.steps import Step
from lepton_core.secagg.terms import (
    LEAST_SECURITY_BITS,
    SMALLEST_COHORT,
    LaneGroup,
    Setup,
    Terms,
    commit_nonce,
)
from lepton_core.secagg.transcript import RoundResult
from lepton_core.secagg.unmask import sum_words, unmask

MODEL_DIGEST = bytes(32)


@dataclass(frozen=True)
class SimulatedRound:
    """How a round in memory ended: with `result` and `groups`, or with `error`."""

    #: The sum of the survivors' packed inputs, one vector a lane group.
    groups: tuple[Words, ...]
    result: RoundResult | None
    error: LeptonError | None
    #: Everything that was sent, in order: (sender or receiver, message).
    log: tuple[tuple[MemberId, MemberMessage | ServerMessage], ...]
    #: What the coordinator stored of each member's masked words; a torn upload's first half is never in the sum.
    uploads: Mapping[MemberId, Words]

    @property
    def survivors(self) -> tuple[MemberId, ...]:
        """The members whose inputs are in the sum; nobody if there is none."""
        return () if self.result is None else self.result.survivors


def example_terms(lane_groups: Sequence[LaneGroup], members: int) -> Terms:
    """Terms of a round that serves no job: every digest is of nothing; a tenth may collude, and a tenth be lost."""
    nothing = hashlib.sha256(b"").digest()
    return Terms(
        job_digest=nothing,
        ontology_digest=nothing,
        membership_digest=nothing,
        compiler_version="",
        codec_version="",
        layout_digest=nothing,
        model_length=sum(group.length for group in lane_groups),
        lane_groups=tuple(lane_groups),
        min_cohort=SMALLEST_COHORT,
        max_cohort=members,
        corruption=0.1,
        dropout=0.1,
        security_bits=LEAST_SECURITY_BITS,
        step_deadline_s=30.0,
    )


def run_round(
    identities: Sequence[IdentityKey],
    inputs: Mapping[MemberId, Words],
    terms: Terms,
    randomness: Randomness,
    *,
    drop: Mapping[MemberId, Step] | None = None,
    torn: Collection[MemberId] = (),
) -> SimulatedRound:
    """Run a round to its end. inputs: words by member, as `lanes.pack_input` gives them.

    drop: members that vanish just before they would send their message of a step.
    torn: members that vanish in the middle of their upload.

    Raises:
        InputError: terms or cohort that no round can be opened with; nothing was drawn yet.
        CodecError: an input that does not fit the terms; likewise.
    """
    terms.require_sound()
    choose_parameters(len(identities), terms)
    for key in identities:
        split_groups(inputs[key.member], terms)  # refuses another length
    return _Simulation(identities, inputs, terms, randomness, drop=drop or {}, torn=torn).run()


def event_of(message: MemberMessage) -> heard.MessageEvent:
    """The coordinator's event for a member's message."""
    match message:
        case Advert():
            return heard.AdvertReceived(message)
        case ShareMessage():
            return heard.SharesReceived(message)
        case InputTrailer():
            return heard.InputReceived(message)
        case ConsistencySignature():
            return heard.SignatureReceived(message)
        case Unmasking():
            return heard.UnmaskingReceived(message)


def member_event_of(message: ServerMessage) -> told.Event:
    """The member's event for a message of the coordinator."""
    match message:
        case Roster():
            return told.RosterReceived(message)
        case Delivery():
            return told.DeliveryReceived(message)
        case SurvivorSet():
            return told.SurvivorsReceived(message)
        case Certificate():
            return told.CertificateReceived(message)


def step_of(message: MemberMessage) -> Step:
    """The step in which a member sends this message."""
    match message:
        case Advert():
            return Step.ADVERT
        case ShareMessage():
            return Step.SHARE
        case InputTrailer():
            return Step.INPUT
        case ConsistencySignature():
            return Step.CONSISTENCY
        case Unmasking():
            return Step.UNMASK


class _Simulation:
    def __init__(
        self,
        identities: Sequence[IdentityKey],
        inputs: Mapping[MemberId, Words],
        terms: Terms,
        randomness: Randomness,
        *,
        drop: Mapping[MemberId, Step],
        torn: Collection[MemberId],
    ) -> None:
        self._identities = sorted(identities, key=lambda key: key.member)
        self._inputs, self._terms, self._randomness = inputs, terms, randomness
        self._drop, self._torn = drop, torn
        self._members: dict[MemberId, MemberPhase] = {}
        self._stored: dict[MemberId, Words] = {}
        self._events: deque[heard.Event] = deque()
        self._sends: deque[heard.Send] = deque()
        self._log: list[tuple[MemberId, MemberMessage | ServerMessage]] = []

    def run(self) -> SimulatedRound:
        nonce = self._randomness.token(32)
        setup = Setup(JobId("simulated"), RoundNumber(1), self._terms, commit_nonce(nonce))
        listed = {key.member: key.public for key in self._identities}
        phase, _ = server.start(setup, nonce, listed, BoundModel(ModelVersion(0), MODEL_DIGEST))
        admission = Admission(listed, self._terms.membership_digest, self._terms.min_cohort, self._terms.corruption)
        for key in self._identities:
            started, effects = client.start(setup, key, admission, self._randomness)
            self._members[key.member] = started
            self._perform(key.member, effects)
        while self._events or self._sends:
            if not self._events:
                send = self._sends.popleft()
                self._log.append((send.member, send.message))
                self._tell(send.member, member_event_of(send.message))
                continue
            phase, effects_out = server.step(phase, self._events.popleft())
            for effect in effects_out:
                match effect:
                    case heard.Send():
                        self._sends.append(effect)
                    case heard.Finished(result):
                        total = sum_words((self._stored[member] for member in result.survivors), self._terms)
                        groups = tuple(unmask(total, result.plan, self._terms))
                        return SimulatedRound(groups, result, None, tuple(self._log), self._stored)
                    case heard.Aborted(error):
                        return SimulatedRound((), None, error, tuple(self._log), self._stored)
                    case heard.SetDeadline() | heard.Dropped() | heard.Rejected():
                        pass
        raise InputError("the simulated round came to a standstill", where=type(phase).__name__)

    def _tell(self, member: MemberId, event: told.Event) -> None:
        if member in self._members:
            self._members[member], effects = client.step(self._members[member], event)
            self._perform(member, effects)

    def _perform(self, member: MemberId, effects: Sequence[told.Effect]) -> None:
        for effect in effects:
            match effect:
                case told.Send(message):
                    self._say(member, message)
                case told.Train():
                    self._tell(member, told.InputReady(self._inputs[member]))
                case told.Upload(words, _) if member in self._torn:
                    self._stored[member] = words[: len(words) // 2]
                    self._lose(member)
                case told.Upload(words, trailer):
                    if self._drop.get(member) is not Step.INPUT:
                        self._stored[member] = words
                    self._say(member, trailer)
                    self._tell(member, told.UploadDone())
                case told.RecordAnswer():
                    self._tell(member, told.AnswerRecorded())
                case told.Aborted(error):
                    self._events.append(heard.MemberLost(member, str(error)))
                case told.Finished():
                    pass

    def _say(self, member: MemberId, message: MemberMessage) -> None:
        if self._drop.get(member) is step_of(message):
            self._lose(member)
        elif member in self._members:
            self._log.append((member, message))
            self._events.append(event_of(message))

    def _lose(self, member: MemberId) -> None:
        self._members.pop(member, None)
        self._events.append(heard.MemberLost(member, "simulated loss"))
