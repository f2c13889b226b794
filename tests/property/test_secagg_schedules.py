"""Rounds of 3 to 200 members under any schedule of harm: the exact sum of the frozen survivors, or a clean abort.

A schedule says of some members, for some of the five steps, what befalls their message or what they are told.
"""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_core.secagg import client_phases, server_phases
from lepton_core.secagg import server_events as heard
from lepton_core.secagg.graph import choose_parameters
from lepton_core.secagg.messages import Certificate, Delivery, Roster, ShareMessage, SurvivorSet
from lepton_core.secagg.parameters import Assumptions, is_connected, threshold_range
from lepton_core.secagg.simulate import step_of
from lepton_core.secagg.steps import Step
from lepton_core.secagg.terms import COMPLETE_GRAPH_LIMIT
from tests.property.budget import examples
from tests.property.forging import bend, is_unsigned_change, renamed
from tests.property.test_secagg_rounds import LANES
from tests.protocol.fake_link import FakeRound
from tests.protocol.seeded import make_terms

#: What can befall a member's message of a step: it does not come, nor anything after it; it comes when the step is
#: over; twice; under another's name before its own; changed before it comes; changed instead.
UP = ("lost", "late", "doubled", "renamed", "forged first", "forged instead")
#: What can befall what a member is told, in the step that it then answers.
DOWN = ("told twice", "told a lie first", "told a lie instead")
ANSWERED_BY = {Roster: Step.SHARE, Delivery: Step.INPUT, SurvivorSet: Step.CONSISTENCY, Certificate: Step.UNMASK}
HARMLESS = {"doubled", "told twice", "renamed", "forged first"}


class Schedule:
    """A link that does to each message what the schedule says, and a round over it."""

    def __init__(self, count, harm, seed, **terms):
        self.rng = random.Random(seed)
        self.held = []
        self.shares_bent = False
        self.fake = FakeRound(count, terms=make_terms(max_cohort=count, **terms), up=None, down=self._down)
        self.fake.queue.clear()
        self.harm = {(self.fake.ids[place % count], step): what for (place, step), what in harm.items()}
        self.silent = set()
        self.fake.up = self._up
        for member in self.fake.ids:
            advert = self.fake.members[member].advert
            self.fake.queue.extend(("up", member, bent) for bent in self._up(member, advert))
        hear = self.fake.hear

        def watched(event):
            effects = hear(event)
            if isinstance(event, heard.DeadlinePassed):
                self.fake.queue.extend(("up", member, message) for member, message in self.held)
                self.held.clear()
            return effects

        self.fake.hear = watched

    def run(self):
        self.fake.run()
        return self

    def touched(self):
        """Members to which something happened that they may not have survived."""
        return {member for (member, _), what in self.harm.items() if what not in HARMLESS}

    def _up(self, member, message):
        if member in self.silent:
            return []
        match self.harm.get((member, step_of(message))):
            case "lost":
                self.silent.add(member)
                return []
            case "late":
                self.held.append((member, message))
                return []
            case "doubled":
                return [message, message]
            case "renamed":
                return [renamed(message, self.rng.choice([m for m in self.fake.ids if m != member])), message]
            case "forged first":
                return [self._bent(message), message]
            case "forged instead":
                return [self._bent(message)]
        return [message]

    def _down(self, member, message):
        match self.harm.get((member, ANSWERED_BY[type(message)])):
            case "told twice":
                return [message, message]
            case "told a lie first":
                return [bend(message, self.rng), message]
            case "told a lie instead":
                return [bend(message, self.rng)]
        return [message]

    def _bent(self, message):
        bent = bend(message, self.rng)
        # A dealer's ciphertexts are not signed: a holder whose ciphertext was changed treats the dealer as absent.
        self.shares_bent |= isinstance(message, ShareMessage) and is_unsigned_change(message, bent)
        return bent


def require_lawful(schedule):
    """The one law: exact over the survivors, everybody unharmed among them, or over with its reason."""
    fake = schedule.fake
    assert all(times == 1 for times in fake.recorded.values())
    for phase in fake.members.values():
        assert not isinstance(phase, client_phases.Failed) or phase.error.message
    if fake.result is None:
        assert isinstance(fake.phase, server_phases.Failed)
        assert fake.error.reason in {"TOO_FEW_MEMBERS", "UNRECOVERABLE", "INFEASIBLE"}
        assert schedule.touched() or schedule.shares_bent
        return
    fake.assert_exact()
    if not schedule.shares_bent:
        assert set(fake.ids) - schedule.touched() <= set(fake.result.survivors)


def harm(most):
    """Up to `most` strokes, by a member's place and the step."""
    return st.dictionaries(
        st.tuples(st.integers(0, 199), st.sampled_from(Step)), st.sampled_from(UP + DOWN), max_size=most
    )


SEEDS = st.integers(0, 2**32)


@settings(max_examples=examples(60, 1_500))
@given(count=st.integers(3, 12), strokes=harm(6), groups=LANES, seed=SEEDS)
def test_a_small_round_is_exact_or_ends_cleanly_under_any_schedule(count, strokes, groups, seed):
    require_lawful(Schedule(count, strokes, seed, groups=groups).run())


@settings(max_examples=examples(3, 100))
@given(count=st.integers(13, COMPLETE_GRAPH_LIMIT), strokes=harm(10), groups=LANES, seed=SEEDS)
def test_a_round_over_the_complete_graph_is_exact_or_ends_cleanly_under_any_schedule(count, strokes, groups, seed):
    require_lawful(Schedule(count, strokes, seed, groups=groups).run())


@st.composite
def sparse_numbers(draw):
    """A cohort above 64, its assumptions, and k and t: found by both sides, or any that the assumptions allow."""
    count = draw(st.integers(COMPLETE_GRAPH_LIMIT + 1, examples(90, 200)))
    corruption, dropout = draw(st.sampled_from([(0.0, 0.03), (0.0, 0.1), (0.02, 0.05)]))
    terms = {"corruption": corruption, "dropout": dropout}
    found = choose_parameters(count, make_terms(max_cohort=count, **terms))
    if found is None or draw(st.booleans()):
        return count, terms
    assumed = Assumptions(count, corruption, dropout, 80)
    k = found.neighbours + draw(st.sampled_from([0, 2, 4]))
    low, high = threshold_range(assumed, k)
    if not is_connected(assumed, k) or not low <= min(high, k):
        return count, terms
    return count, {**terms, "neighbours": k, "threshold": draw(st.integers(low, min(high, k)))}


@settings(max_examples=examples(4, 200))
@given(numbers=sparse_numbers(), strokes=harm(8), groups=LANES, seed=SEEDS)
def test_a_round_over_a_sparse_graph_is_exact_or_ends_cleanly_under_any_schedule(numbers, strokes, groups, seed):
    count, terms = numbers
    require_lawful(Schedule(count, strokes, seed, groups=groups, **terms).run())
