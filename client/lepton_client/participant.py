"""One owner's part in every job, as a machine without input or output: commands and completions in, effects out.

Everything that can change what this owner has promised, charged or revealed is in this file. `effects` is its
vocabulary, `consent` says what is refused and charges, `lepton_core.secagg.client` is the protocol of one round, and
`ledger` and `records` are the memory that survives the process.

Rules
  1. Commands may come any number of times: the same one gets the same answer, or none while it is being worked on.
  2. A job is accepted only after policy, peers, noise, budget and data have all been checked; the acceptance is
     durable before it is told. A restarted owner checks its data again before its first round.
  3. A round's terms must equal those this owner derives from the job and the list it accepted. Policy, peers and
     budget are checked again when a round begins and before anything is trained.
  4. A charge is RESERVED before `Train` is returned, and SPENT before `Upload` is; a round is charged once.
  5. An answer is durable before the unmasking leaves: one a model and a version of a job, as many as it has rounds.
  6. The keys of one newer round may be made while a round runs; its model ends the older one, a still newer round its
     keys. Whatever ends a round erases its secrets and tells the coordinator why, in words that reveal nothing. A round
     this process knows nothing of is refused: its secrets died with a process.
  7. What an update leaves out is durable before the update leaves, and counts once its round has: see `feedback`.

    a job     MatchRequest -> checks -> Match -> matched -> accepted (durable) -> MatchAnswer
    a round   RoundInvite -> Advert; Roster -> ShareMessage; Delivery -> RESERVED -> Train -> trained -> SPENT
              -> (Upload -> uploaded ->) InputTrailer; SurvivorSet -> ConsistencySignature;
              Certificate -> answer recorded (durable) -> Unmasking; RoundClosed -> Follow
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import assert_never

from lepton_client.consent import Consent, require_open, require_same_job
from lepton_client.effects import Effect, Follow, Forget, ForgetJob, Match, SendReport, Train, Upload
from lepton_client.feedback import Feedback
from lepton_client.ledger import Ledger
from lepton_client.phases import CurrentRound, Matching, digest_of_request, event_of
from lepton_client.policy import Policy
from lepton_client.protocols import Training, Uploaded, Uploading, is_plain, start, step
from lepton_client.records import AcceptedJob, Records
from lepton_client.refusals import Refusals, leaving, refuse_round
from lepton_client.residuals import Residuals
from lepton_client.rounds import Rounds
from lepton_core.errors import AbortedError, LeptonError
from lepton_core.identity import IdentityKey
from lepton_core.ids import Digest, JobId, RoundNumber, digest_of
from lepton_core.job import Job, parse_job
from lepton_core.membership import SignedList
from lepton_core.ports import Clock, Randomness
from lepton_core.secagg import client_events as secagg
from lepton_core.secagg.client_phases import Done, Failed
from lepton_core.secagg.messages import Delivery, ServerMessage
from lepton_core.secagg.payload import encode_payload
from lepton_core.secagg.terms import Setup
from lepton_core.session import (
    INLINE_BYTES,
    JobClosed,
    MatchAnswer,
    MatchRequest,
    Published,
    RoundClosed,
    RoundCommand,
    RoundInvite,
    RoundReport,
    ServerCommand,
    Welcome,
)
from lepton_pool.steps import Learnt
from lepton_pool.terms import derive_ring_plan

#: A round has five steps; one that nothing moves for longer than all of them is over, told or not.
_STEPS_BEFORE_EXPIRY = 6
#: Jobs whose data are checked at once; further requests are taken when the coordinator repeats them.
_MOST_MATCHING = 16

Effects = tuple[Effect, ...]


class Participant:
    """One owner's part in every job; deterministic from its calls, `clock` and `randomness`. Not thread-safe.

    `policy` and `accepted_list` are looked up each time they matter: what the owner writes holds from then on.
    """

    def __init__(
        self,
        *,
        identity: IdentityKey,
        policy: Callable[[], Policy],
        accepted_list: Callable[[], SignedList | None],
        ledger: Ledger,
        records: Records,
        residuals: Residuals,
        randomness: Randomness,
        clock: Clock,
    ) -> None:
        self._identity = identity
        self._consent = Consent(
            identity=identity,
            policy=policy,
            accepted_list=accepted_list,
            ledger=ledger,
            records=records,
            clock=clock,
        )
        self._records = records
        self._randomness = randomness
        self._feedback = Feedback(identity.member, residuals, randomness)
        self._clock = clock
        #: Jobs whose data were checked by this process.
        self._prepared: set[JobId] = set()
        self._matching: dict[JobId, Matching] = {}
        self._refused = Refusals()
        self._rounds = Rounds()

    # Commands and completions -----------------------------------------------------------------------------------------

    def resume(self) -> Effects:
        """Check the data of open jobs again after a restart; optional, as a round's invitation does it too."""
        effects: list[Effect] = []
        self._consent.settle()
        for job_id, accepted in self._records.jobs().items():
            if accepted.closed or job_id in self._prepared or job_id in self._matching:
                continue
            with contextlib.suppress(LeptonError):  # what forbids the job now is told when a round asks
                population = self._consent.population(accepted.job)
                self._matching[job_id] = Matching(accepted.job, accepted.membership, None, None)
                effects.append(Match(job_id, accepted.job, population))
        return tuple(effects)

    def handle(self, command: ServerCommand) -> Effects:
        """What a command of the coordinator asks of this owner."""
        match command:
            case Welcome():
                return ()
            case MatchRequest():
                return self._asked(command)
            case RoundInvite(setup):
                return self._invited(setup)
            case RoundCommand(job_id, number, message):
                return self._commanded(job_id, number, message)
            case RoundClosed(job_id, number, outcome, _, published):
                self._feedback.close(job_id, number, outcome)
                self._consent.note_closed(job_id, self._rounds.find(job_id, number), outcome)
                return self._end_round(job_id, number, published)
            case JobClosed(job_id, state):
                return self._close_job(job_id, state)
            case _:
                assert_never(command)

    def matched(self, job_id: JobId, outcome: Digest | LeptonError, content: str = "", coverage: str = "") -> Effects:
        """The owner's data can serve the job, by the plan of this digest; or cannot, because. `content` is evidence."""
        waiting = self._matching.pop(job_id, None)
        if waiting is None or waiting.closed:
            return (ForgetJob(job_id),) if waiting is not None else ()
        if isinstance(outcome, LeptonError):
            return self._refuse_match(job_id, waiting, outcome)
        try:
            self._consent.require_job(job_id, waiting.job, waiting.membership)
            self._records.accept(AcceptedJob(job_id, waiting.job, waiting.membership, outcome, content))
        except LeptonError as error:
            return self._refuse_match(job_id, waiting, error)
        self._prepared.add(job_id)
        self._refused.forget(job_id)
        answer = (SendReport(MatchAnswer(job_id, None, coverage)),) if waiting.request is not None else ()
        return (*answer, *(self._invited(waiting.invite) if waiting.invite is not None else ()))

    def trained(self, job_id: JobId, number: RoundNumber, update: Learnt, rows: int) -> Effects:
        """Training on so many rows is done; `update` is what it gave, shape (length,)."""
        current = self._current(job_id, number)
        if current is None or current.train is None or not isinstance(current.phase, Training):
            return ()
        try:
            job = self._records.jobs()[job_id].job
            words = self._feedback.encode(job, current.setup, current.train, update, rows)
            return self._step(job_id, current, secagg.InputReady(words))
        except LeptonError as error:
            return self._leave(job_id, current, error)

    def training_failed(self, job_id: JobId, number: RoundNumber, error: LeptonError) -> Effects:
        """Nothing was learnt in this round, because."""
        current = self._current(job_id, number)
        return () if current is None else self._leave(job_id, current, error)

    def uploaded(self, job_id: JobId, number: RoundNumber) -> Effects:
        """The coordinator has the payload."""
        current = self._current(job_id, number)
        if current is None or not isinstance(current.phase, Uploading | Uploaded):
            return ()
        trailer = SendReport(RoundReport(job_id, number, current.phase.upload.trailer))
        return (trailer, *self._step(job_id, current, secagg.UploadDone()))

    def upload_failed(self, job_id: JobId, number: RoundNumber, error: LeptonError) -> Effects:
        """The payload could not be uploaded, after every retry."""
        current = self._current(job_id, number)
        if current is None or not isinstance(current.phase, Uploading):
            return ()
        return self._leave(job_id, current, error)

    def tick(self) -> Effects:
        """End rounds that the coordinator has forgotten; call it now and then."""
        now = self._clock.now()
        effects: list[Effect] = []
        for job_id, current in self._rounds:
            patience_s = _STEPS_BEFORE_EXPIRY * current.setup.terms.step_deadline_s
            if not current.over and now - current.touched > patience_s:
                gone = AbortedError("nothing has moved this round for too long", where="coordinator", reason="EXPIRED")
                effects += self._leave(job_id, current, gone)
        return tuple(effects)

    # Jobs -------------------------------------------------------------------------------------------------------------

    def _asked(self, request: MatchRequest) -> Effects:
        job_id = request.job
        if job_id in self._matching or len(self._matching) >= _MOST_MATCHING:
            return ()
        refusal = self._refused.find(job_id, digest_of_request(request))
        if refusal is not None:
            return (SendReport(MatchAnswer(job_id, refusal)),)
        job: Job | None = None
        try:
            job = parse_job(request.canonical_job)
            known = self._records.jobs().get(job_id)
            if known is not None:
                require_same_job(known, job)
                if known.membership.to_json() == request.membership_list:
                    return (SendReport(MatchAnswer(job_id, None)),)
            offered = SignedList.from_json(request.membership_list)
            population = self._consent.require_job(job_id, job, offered)
        except LeptonError as error:
            return self._refuse_match_request(request, job, error)
        self._matching[job_id] = Matching(job, offered, request, None)
        return (Match(job_id, job, population),)

    def _refuse_match(self, job_id: JobId, waiting: Matching, error: LeptonError) -> Effects:
        asked, invite = waiting.request, waiting.invite
        told = self._refuse_match_request(asked, waiting.job, error) if asked is not None else ()
        left = (refuse_round(job_id, invite.round, leaving(error, waiting.job)),) if invite is not None else ()
        return (*told, *left, ForgetJob(job_id))

    def _refuse_match_request(self, request: MatchRequest, job: Job | None, error: LeptonError) -> Effects:
        refusal = leaving(error, job)
        self._refused.keep(request.job, digest_of_request(request), refusal, error)
        return (SendReport(MatchAnswer(request.job, refusal)),)

    def _close_job(self, job_id: JobId, state: str) -> Effects:
        self._records.close_job(job_id, state)
        self._feedback.forget(job_id)
        effects = self._erase_all(job_id, self._rounds.drop(job_id))
        self._consent.close(job_id)
        matching = self._matching.get(job_id)
        if matching is not None:
            # Its place stays taken until the data under way have come, so that they serve no later job of this id.
            self._matching[job_id] = replace(matching, request=None, invite=None, closed=True)
        self._refused.forget(job_id)
        self._prepared.discard(job_id)
        return (*effects, ForgetJob(job_id))

    # Rounds -----------------------------------------------------------------------------------------------------------

    def _invited(self, setup: Setup) -> Effects:
        job_id = setup.job
        known = self._rounds.find(job_id, setup.round)
        if known is not None:
            return self._repeated(job_id, known, secagg.SetupReceived(setup))
        if setup.round < self._rounds.newest(job_id):
            return ()
        accepted = self._records.jobs().get(job_id)
        try:
            job = require_open(accepted, job_id)
            if job_id not in self._prepared:
                return self._prepare_again(job, setup)
            _, admission = self._consent.require_round(setup, job)
        except LeptonError as error:
            refusal = leaving(error, accepted.job if accepted is not None else None)
            return (refuse_round(job_id, setup.round, refusal),)
        phase, effects = start(job.job, setup, self._identity, admission, self._randomness)
        begun = CurrentRound(setup, phase, self._clock.now())
        ended = self._erase_all(job_id, self._rounds.add(job_id, begun))
        asked = self._perform(job_id, begun, effects)
        running = self._rounds.before(job_id, setup.round)
        if running is not None and isinstance(running.phase, Training):
            # The advert of a round whose model is not known yet has time: it rides on this round's input.
            begun.riding = tuple(effect for effect in asked if isinstance(effect, SendReport))
            asked = tuple(effect for effect in asked if not isinstance(effect, SendReport))
        return (*ended, *asked)

    def _prepare_again(self, accepted: AcceptedJob, setup: Setup) -> Effects:
        """A restarted owner checks its data before its first round; the invitation waits."""
        job_id = accepted.job_id
        before = self._matching.get(job_id)
        request = before.request if before is not None else None
        self._matching[job_id] = Matching(accepted.job, accepted.membership, request, setup)
        if before is not None:
            return ()
        return (Match(job_id, accepted.job, self._consent.population(accepted.job)),)

    def _commanded(self, job_id: JobId, number: RoundNumber, message: ServerMessage) -> Effects:
        current = self._rounds.find(job_id, number)
        if current is None and (number < self._rounds.newest(job_id) or is_plain(self._records.jobs().get(job_id))):
            return ()
        if current is None:
            lost = AbortedError("this process holds no secrets of that round", reason="SECRETS_LOST")
            return (refuse_round(job_id, number, leaving(lost, None)),)
        older = self._rounds.drop_before(job_id, number) if isinstance(message, Delivery) else ()
        ended = self._erase_all(job_id, older)  # a newer model ends an older round
        return (*ended, *self._repeated(job_id, current, event_of(message, self._records.answered(job_id))))

    def _repeated(self, job_id: JobId, current: CurrentRound, event: secagg.Event) -> Effects:
        if current.refusal is not None:
            return (refuse_round(job_id, current.setup.round, current.refusal),)
        return self._step(job_id, current, event)

    def _step(self, job_id: JobId, current: CurrentRound, event: secagg.Event) -> Effects:
        current.phase, effects = step(current.phase, event)
        current.touched = self._clock.now()
        return self._perform(job_id, current, effects)

    def _perform(self, job_id: JobId, current: CurrentRound, effects: Sequence[secagg.Effect]) -> Effects:
        number = current.setup.round
        asked: list[Effect] = []
        for effect in effects:
            match effect:
                case secagg.Send(message):
                    asked.append(SendReport(RoundReport(job_id, number, message)))
                case secagg.Train():
                    asked += self._begin_training(job_id, current, effect)
                case secagg.Upload():
                    asked += self._begin_upload(job_id, current, effect)
                case secagg.RecordAnswer(version):
                    try:
                        self._records.record_answer(job_id, version, current.model)
                    except LeptonError as error:
                        return (*asked, *self._leave(job_id, current, error))
                    asked += self._step(job_id, current, secagg.AnswerRecorded())
                case secagg.Finished():
                    current.over = True
                    asked.append(Forget(job_id, number))
                case secagg.Aborted(error):
                    asked += self._leave(job_id, current, error)
                case _:
                    assert_never(effect)
        return tuple(asked)

    def _begin_training(self, job_id: JobId, current: CurrentRound, train: secagg.Train) -> Effects:
        accepted = self._records.jobs()[job_id]
        current.train = train
        try:
            # Much may have changed since this round's keys were made.
            population, admission = self._consent.require_round(current.setup, accepted)
            self._consent.require_model(accepted, train.model_version, current.model)
            current.charge = self._consent.reserve(accepted, current.setup.round, population)
            sent = self._feedback.resume(job_id, train)
            if sent is not None:
                return self._step(job_id, current, secagg.InputReady(sent))
        except LeptonError as error:
            return self._leave(job_id, current, error)
        asked = Train(
            job_id=job_id,
            job=accepted.job,
            setup=current.setup,
            peers=admission.members,
            model_version=train.model_version,
            model_digest=current.model,
            ring_plan=derive_ring_plan(accepted.job),
            codec_seed=train.codec_seed,
            expected_batch=population.declared(accepted.job.privacy.unit) * accepted.job.training.record_rate,
            shuffle=accepted.shuffle_of(train.model_version, self._identity.member),
        )
        return (asked,)

    def _begin_upload(self, job_id: JobId, current: CurrentRound, upload: secagg.Upload) -> Effects:
        try:
            job = self._records.jobs()[job_id].job
            self._consent.release(job, None if current.spent else current.charge)
        except LeptonError as error:
            return self._leave(job_id, current, error)
        current.spent = True
        payload, number = encode_payload(upload.words), current.setup.round
        if len(payload) > INLINE_BYTES:
            deadline_s = current.setup.terms.step_deadline_s
            return (Upload(job_id, number, payload, digest_of(payload), deadline_s), *self._rounds.take_riding(job_id))
        trailer = SendReport(RoundReport(job_id, number, upload.trailer, payload))
        return (trailer, *self._rounds.take_riding(job_id), *self._step(job_id, current, secagg.UploadDone()))

    def _leave(self, job_id: JobId, current: CurrentRound, error: LeptonError) -> Effects:
        """End this owner's part in a round, erase its secrets, and tell the coordinator."""
        accepted = self._records.jobs().get(job_id)
        current.refusal = leaving(error, accepted.job if accepted is not None else None)
        refused = refuse_round(job_id, current.setup.round, current.refusal)
        return (refused, *self._erase(job_id, current), *self._rounds.take_riding(job_id))

    def _end_round(self, job_id: JobId, number: RoundNumber, published: Published | None) -> Effects:
        follow: Effects = ()
        current = self._rounds.find(job_id, number)
        if current is None:
            return ()
        if published is not None and isinstance(current.phase, Done) and current.train is not None:
            survivors = current.phase.survivors.survivors
            follow = (Follow(job_id, published, current.train.sid, survivors),)
        return (*follow, *self._erase(job_id, current), *self._rounds.take_riding(job_id))

    def _erase_all(self, job_id: JobId, rounds: Sequence[CurrentRound]) -> Effects:
        return tuple(effect for current in rounds for effect in self._erase(job_id, current))

    def _erase(self, job_id: JobId, current: CurrentRound) -> Effects:
        if current.over:
            return ()
        current.phase = Failed(AbortedError("the round is over", reason="STOPPED"))
        current.train = None
        current.riding = ()
        current.over = True
        return (Forget(job_id, current.setup.round),)

    def _current(self, job_id: JobId, number: RoundNumber) -> CurrentRound | None:
        known = self._rounds.find(job_id, number)
        return known if known is not None and not known.over else None
