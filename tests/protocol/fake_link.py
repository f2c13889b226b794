"""Every member's machine and the coordinator's, joined by a link that a test can bend: lose, double, reorder, forge."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np

from lepton_core.ids import JobId, MemberId, ModelVersion, RoundNumber
from lepton_core.ring import unpack
from lepton_core.secagg import client, server, server_phases
from lepton_core.secagg import client_events as told
from lepton_core.secagg import client_phases as member_phases
from lepton_core.secagg import server_events as heard
from lepton_core.secagg.client_checks import Admission
from lepton_core.secagg.server_phases import BoundModel
from lepton_core.secagg.server_status import step_of
from lepton_core.secagg.simulate import event_of, member_event_of
from lepton_core.secagg.terms import Setup, commit_nonce
from lepton_core.secagg.unmask import sum_words, unmask
from tests.protocol.seeded import SeededRandomness, draw_values, make_identities, make_terms, pack_values

NONCE = b"n" * 32
MODEL_DIGEST = b"d" * 32


class FakeRound:
    """One round of `count` members. Override `up` and `down` (or pass functions) to bend what is sent."""

    def __init__(self, count, *, terms=None, seed="round", number=1, up=None, down=None, chaos=None, answered=()):
        self.terms = terms or make_terms()
        self.identities = make_identities(count)
        self.ids = [key.member for key in self.identities]
        self.setup = Setup(JobId("test"), RoundNumber(number), self.terms, commit_nonce(NONCE))
        listed = {key.member: key.public for key in self.identities}
        self.admission = Admission(listed, self.terms.membership_digest, self.terms.min_cohort, self.terms.corruption)
        rng = np.random.default_rng(7)
        self.values = {member: draw_values(self.terms, count, rng) for member in self.ids}
        self.up = up or (lambda member, message: [message])
        self.down = down or (lambda member, message: [message])
        self.chaos: random.Random | None = chaos
        self.queue = []
        self.journal = []
        self.stored = {}
        self.rejected: list[heard.Rejected] = []
        self.dropped: list[heard.Dropped] = []
        self.sent: list[tuple[MemberId, object]] = []
        self.recorded: Counter = Counter()
        self.result = None
        self.error = None
        self.blamed = None
        self.deadlines = 0
        self.answered = frozenset(answered)
        self.phase, effects = server.start(self.setup, NONCE, listed, BoundModel(ModelVersion(4), MODEL_DIGEST))
        self.first_phase = self.phase
        self._perform(effects)
        self.members = {}
        self.lost = set()
        for key in self.identities:
            phase, out = client.start(self.setup, key, self.admission, SeededRandomness(seed + key.member.hex()))
            self.members[key.member] = phase
            self._do(key.member, out)

    def run(self):
        """Deliver until the link is quiet; then pass the deadline; until the round is over."""
        while True:
            while self.queue:
                index = self.chaos.randrange(len(self.queue)) if self.chaos else 0
                item = self.queue.pop(index)
                if self.chaos and self.chaos.random() < 0.3:
                    self.queue.append(item)
                kind, member, message = item
                if kind == "up":
                    self.hear(event_of(message))
                elif member not in self.lost:
                    self.tell(member, self.event_for(message))
            if isinstance(self.phase, server_phases.Closed | server_phases.Failed):
                return self
            self.deadlines += 1
            assert self.deadlines < 10, "the round does not end"
            self.hear(heard.DeadlinePassed(step_of(self.phase)))

    def event_for(self, message):
        """The member's event for a message, with what it has answered before."""
        event = member_event_of(message)
        return replace(event, answered=self.answered) if isinstance(event, told.DeliveryReceived) else event

    def lose(self, member):
        """The member is gone, and the coordinator knows."""
        self.lost.add(member)
        self.hear(heard.MemberLost(member, "test"))

    def hear(self, event):
        """One event for the coordinator."""
        self.journal.append(event)
        self.phase, effects = server.step(self.phase, event)
        self._perform(effects)
        return effects

    def tell(self, member, event):
        """One event for a member."""
        self.members[member], effects = client.step(self.members[member], event)
        self._do(member, effects)
        return effects

    def error_of(self, member):
        """Why a member aborted."""
        assert isinstance(self.members[member], member_phases.Failed), self.members[member]
        return self.members[member].error

    def assert_exact(self):
        """The unmasked lanes are exactly the sums of the survivors' integers."""
        assert self.result is not None, self.error
        total = sum_words((self.stored[digest] for digest in self.result.payload_digests.values()), self.terms)
        groups = unmask(total, self.result.plan, self.terms)
        for index, (words, group) in enumerate(zip(groups, self.terms.lane_groups, strict=True)):
            expected = sum(self.values[member][index] for member in self.result.survivors)
            np.testing.assert_array_equal(unpack(words, group.bits, group.length), expected)

    def _perform(self, effects):
        for effect in effects:
            match effect:
                case heard.Send(member, message):
                    self.sent.append((member, message))
                    self.queue.extend(("down", member, bent) for bent in self.down(member, message))
                case heard.Rejected():
                    self.rejected.append(effect)
                case heard.Dropped():
                    self.dropped.append(effect)
                case heard.Finished(result):
                    self.result = result
                case heard.Aborted(error, blamed):
                    self.error, self.blamed = error, blamed

    def _do(self, member, effects):
        for effect in effects:
            match effect:
                case told.Send(message):
                    self.queue.extend(("up", member, bent) for bent in self.up(member, message))
                case told.Train():
                    self.tell(member, told.InputReady(pack_values(self.values[member], self.terms)))
                case told.Upload(words, trailer):
                    self.stored[trailer.payload_digest] = words
                    if isinstance(self.members[member], member_phases.Uploading):
                        self.tell(member, told.UploadDone())
                    self.queue.extend(("up", member, bent) for bent in self.up(member, trailer))
                case told.RecordAnswer(version):
                    self.recorded[member, version] += 1
                    self.tell(member, told.AnswerRecorded())
