from __future__ import annotations

import pytest

from lepton_admin.demo.power_loss import MOST_ATTEMPTS, PowerLoss, came_back, recovered
from lepton_core.views import DroppedMember, RoundView
from tests.unit.admin.job_events import event


class Scene:
    """A power loss whose stops, kills and restarts are written down, at a time that the test sets."""

    def __init__(self, *, stops=True):
        self.done = []
        self.now = 100.0
        self.loss = PowerLoss(
            owner="changhe",
            from_round=3,
            cohort=5,
            stop=lambda: self.done.append("stop") or stops,
            kill=lambda: self.done.append("kill"),
            restart=lambda: self.done.append("restart"),
            say=lambda _text: None,
            clock=lambda: self.now,
        )

    def tell(self, *events):
        for entry in events:
            self.loss.take(entry)

    def lose(self, number):
        """What a round before, and the round in which the member is lost, tell."""
        self.tell(step(number - 1, "consistency"), step(number, "input", time=self.now + 0.05))


def step(number, name, cohort=5, **fields):
    return event("step", round=number, step=name, cohort=cohort, **fields)


def test_the_member_learns_no_more_while_a_round_ends_and_is_killed_when_the_next_waits_for_it():
    scene = Scene()
    scene.tell(step(1, "consistency"), step(2, "input"), step(2, "unmasking"))
    assert scene.done == []
    scene.tell(step(2, "consistency"))
    assert scene.done == ["stop"]
    scene.tell(step(2, "unmasking", time=100.01), event("round", round=2, time=100.02), step(3, "share", time=100.03))
    assert scene.done == ["stop"]
    scene.tell(step(3, "input", time=100.04))
    assert scene.done == ["stop", "kill", "restart"]
    scene.tell(event("dropped", round=3, step="input", owner="birken"))
    assert not scene.loss.happened()
    scene.tell(event("dropped", round=3, step="input", owner="changhe"))
    assert scene.loss.happened()
    scene.lose(5)
    assert scene.done == ["stop", "kill", "restart"]
    assert scene.loss.rounds == [3]


def test_a_round_that_began_before_the_stop_may_have_its_upload_and_the_next_one_is_taken():
    scene = Scene()
    scene.tell(step(2, "consistency", time=90.0), step(3, "input", time=99.0))
    assert scene.done == ["stop"]
    scene.tell(step(3, "consistency", time=99.5), step(4, "input", time=100.5))
    assert scene.done == ["stop", "kill", "restart"]
    assert scene.loss.rounds == [4]


def test_a_round_that_began_before_the_stop_and_waits_for_the_member_is_the_one():
    scene = Scene()
    scene.tell(step(2, "consistency", time=90.0), step(3, "input", time=99.5))
    scene.loss.look()
    assert scene.done == ["stop"]
    scene.now += 1.0
    scene.loss.look()
    assert scene.done == ["stop", "kill", "restart"]
    assert scene.loss.rounds == [3]
    scene.now += 10.0
    scene.loss.look()
    assert scene.done == ["stop", "kill", "restart"]


def test_where_nothing_can_be_stopped_the_member_is_killed_when_a_round_comes_to_the_upload():
    scene = Scene(stops=False)
    scene.tell(step(2, "consistency", time=90.0))
    scene.now += 10.0
    scene.loss.look()
    assert scene.done == ["stop"]
    scene.tell(step(3, "input", time=90.1))
    assert scene.done == ["stop", "kill", "restart"]


def test_a_round_without_the_full_cohort_is_left_in_peace():
    scene = Scene()
    scene.tell(step(2, "consistency", cohort=4), step(3, "input", cohort=4))
    assert scene.done == []


@pytest.mark.parametrize(
    "ending",
    [
        event("dropped", round=3, step="consistency", owner="changhe"),
        event("round", round=3),
        event("aborted-round", round=3),
    ],
    ids=lambda ending: ending.kind,
)
def test_a_kill_that_came_after_the_upload_is_tried_again_in_a_later_full_round(ending):
    scene = Scene()
    scene.lose(3)
    scene.tell(ending)
    assert scene.done == ["stop", "kill", "restart"]
    assert not scene.loss.happened()
    scene.tell(step(4, "consistency", cohort=4), step(5, "consistency"), step(6, "input", time=100.1))
    assert scene.done == ["stop", "kill", "restart"] * 2


def test_it_is_not_tried_for_ever():
    scene = Scene()
    for number in range(3, 30):
        scene.lose(number)
        scene.tell(event("round", round=number))
    assert scene.done.count("kill") == MOST_ATTEMPTS


def view(number, *, state="completed", dropped=(), survivors=("aurora", "birken"), masks=0):
    return RoundView(
        job="hospitals-1",
        round=number,
        model_version=number - 1,
        state=state,
        step="done",
        cohort=(),
        waiting_for=(),
        survivors=survivors,
        dropped=tuple(DroppedMember(owner, at, "connection lost") for owner, at in dropped),
        reason="",
        started=0.0,
        ended=0.0,
        payload_bytes=0,
        message_bytes=0,
        pair_masks_reconstructed=masks,
    )


@pytest.mark.parametrize(
    ("entry", "counts"),
    [
        (view(3, dropped=[("changhe", "input")], masks=4), True),
        (view(3, dropped=[("changhe", "input")], masks=0), False),
        (view(3, dropped=[("changhe", "consistency")], masks=4), False),
        (view(3, dropped=[("birken", "input")], masks=4), False),
        (view(3, dropped=[("changhe", "input")], masks=4, state="aborted"), False),
    ],
)
def test_only_a_completed_round_that_rebuilt_the_lost_members_masks_counts(entry, counts):
    assert (recovered((view(1), entry), "changhe") == [entry]) is counts


def test_the_member_is_back_in_the_first_later_round_whose_sum_holds_it():
    rounds = (view(2, survivors=("changhe",)), view(3), view(4), view(5, survivors=("aurora", "changhe")))
    assert came_back(rounds, "changhe", 3) == 5
    assert came_back(rounds, "delta-clinic", 3) == 0
