"""A round in which anything happens at any moment: the sum is exact or the round ends with its reason.

Hypothesis plays the network, the clock and a forger: it delivers, loses, doubles and reorders messages, loses members,
lets deadlines pass, and forges messages in both directions: bits flipped, another member's name, another round's.
"""

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lepton_core.errors import LeptonError
from lepton_core.secagg import client_phases, server_phases
from lepton_core.secagg import server_events as heard
from lepton_core.secagg.server_status import step_of, waiting_for
from lepton_core.secagg.terms import LaneGroup
from tests.property.budget import examples
from tests.property.forging import another_round, bend, hear, is_unsigned_change, renamed, sender_of
from tests.property.test_secagg_rounds import LANES
from tests.protocol.fake_link import FakeRound
from tests.protocol.seeded import make_terms

PLACES = st.integers(0, 2**16)
OVER = server_phases.Closed | server_phases.Failed


class RoundMachine(RuleBasedStateMachine):
    """One round of `count` members; what is on its way is `fake.queue`."""

    def __init__(self):
        super().__init__()
        self.fake = FakeRound(3, terms=make_terms((LaneGroup(1, 16),)))
        #: Members that nobody lied to, or forged a message of, and that were not lost.
        self.untouched = set()
        self.shares_bent = False
        self.most_touched = 0

    @initialize(count=st.integers(3, 9), groups=LANES, touched=st.integers(0, 5), seed=st.integers(0, 2**32))
    def open(self, count, groups, touched, seed):
        """At most `touched` members come to harm, so that many rounds get far; up to 2 of 9 leave a sum."""
        self.fake = FakeRound(count, terms=make_terms(groups), seed=str(seed))
        self.untouched = set(self.fake.ids)
        self.most_touched = touched

    # The network ------------------------------------------------------------------------------------------------------

    @rule(place=PLACES)
    @precondition(lambda self: self.fake.queue)
    def deliver_one_from_anywhere(self, place):
        self._deliver(self._take(place))

    @rule(times=st.sampled_from((3, 10, 30)))
    def deliver_in_order(self, times):
        for _ in range(times):
            if self.fake.queue:
                self._deliver(self.fake.queue.pop(0))

    @rule()
    def deliver_until_the_next_step(self):
        step = type(self.fake.phase)
        while self.fake.queue and type(self.fake.phase) is step:
            self._deliver(self.fake.queue.pop(0))

    @rule(place=PLACES)
    @precondition(lambda self: self.fake.queue)
    def double(self, place):
        self.fake.queue.append(self.fake.queue[place % len(self.fake.queue)])

    @rule(place=PLACES)
    @precondition(lambda self: self.fake.queue)
    def lose_a_message(self, place):
        _, member, _ = self.fake.queue[place % len(self.fake.queue)]
        if self._may_touch({member}):
            self._take(place)

    @rule(place=PLACES)
    def lose_a_member(self, place):
        member = self._member(place)
        if self._may_touch({member}):
            self.fake.lose(member)

    @rule()
    def pass_the_deadline(self):
        if not isinstance(self.fake.phase, OVER) and self._may_touch(set(waiting_for(self.fake.phase))):
            self.fake.hear(heard.DeadlinePassed(step_of(self.fake.phase)))

    # The forger -------------------------------------------------------------------------------------------------------

    @rule(place=PLACES, seed=st.integers(0, 2**32))
    @precondition(lambda self: self.fake.queue)
    def flip_something(self, place, seed):
        kind, member, message = self.fake.queue[place % len(self.fake.queue)]
        bent = bend(message, random.Random(seed))
        assert bent != message
        if kind == "down":
            if self._may_touch({member}):
                self._deliver((kind, member, bent))
        elif is_unsigned_change(message, bent):
            if self._may_touch({member}):
                self.shares_bent = True
                self.fake.hear(heard.SharesReceived(bent))
        else:
            self._nothing_comes_of(bent)

    @rule(place=PLACES, other=PLACES)
    @precondition(lambda self: any(kind == "up" for kind, _, _ in self.fake.queue))
    def speak_for_another(self, place, other):
        said = [(member, message) for kind, member, message in self.fake.queue if kind == "up"]
        member, message = said[place % len(said)]
        name = self._member(other)
        if name != member:
            self._nothing_comes_of(renamed(message, name))

    @rule(place=PLACES)
    def replay_another_round(self, place):
        said = another_round(len(self.fake.ids))
        kind, member, message = said[place % len(said)]
        if kind == "up":
            self._nothing_comes_of(message)
        elif self._may_touch({member}):
            self._deliver((kind, member, message))

    # What always holds ------------------------------------------------------------------------------------------------

    @invariant()
    def of_each_dealer_one_kind_of_share_is_revealed(self):
        kinds = {}
        for event in self.fake.journal:
            if isinstance(event, heard.UnmaskingReceived) and event.unmasking.member in self.fake.ids:
                phase = self.fake.members[event.unmasking.member]
                if isinstance(phase, client_phases.Done) and phase.answer == event.unmasking:
                    for entry in event.unmasking.revealed:
                        kinds.setdefault(entry.dealer, set()).add(entry.kind)
        assert all(len(kind) == 1 for kind in kinds.values())

    @invariant()
    def nobody_answers_twice(self):
        assert all(times == 1 for times in self.fake.recorded.values())

    @invariant()
    def who_gave_up_says_why(self):
        for phase in self.fake.members.values():
            if isinstance(phase, client_phases.Failed):
                assert isinstance(phase.error, LeptonError)
                assert phase.error.message

    def teardown(self):
        self.fake.run()
        if self.fake.result is None:
            assert self.fake.error.reason in {"TOO_FEW_MEMBERS", "UNRECOVERABLE"}
            assert len(self.untouched) < len(self.fake.ids)
            return
        self.fake.assert_exact()
        if not self.shares_bent:
            assert self.untouched <= set(self.fake.result.survivors)

    # Hands ------------------------------------------------------------------------------------------------------------

    def _member(self, place):
        return self.fake.ids[place % len(self.fake.ids)]

    def _may_touch(self, members):
        """True if harm may come to these members as well; then they are touched."""
        left = self.untouched - members
        if len(self.fake.ids) - len(left) > self.most_touched:
            return False
        self.untouched = left
        return True

    def _take(self, place):
        return self.fake.queue.pop(place % len(self.fake.queue))

    def _deliver(self, item):
        kind, member, message = item
        if kind == "up":
            hear(self.fake, message)
        elif member not in self.fake.lost:
            self.fake.tell(member, self.fake.event_for(message))

    def _nothing_comes_of(self, message):
        """The coordinator refuses the message, naming whom it names, and stays as it was."""
        before = self.fake.phase
        refusals = hear(self.fake, message)
        assert self.fake.phase is before
        if not isinstance(before, OVER):
            assert [refused.member for refused in refusals] == [sender_of(message)]


RoundMachine.TestCase.settings = settings(max_examples=examples(60, 2_000), stateful_step_count=50)
test_whatever_happens_the_sum_is_exact_or_the_round_ends_with_its_reason = RoundMachine.TestCase
