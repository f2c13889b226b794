from __future__ import annotations

import pytest

from lepton_admin.demo.power_loss import MOST_ATTEMPTS, PowerLoss, came_back, recovered
from lepton_core.views import DroppedMember, RoundView
from tests.unit.admin.job_events import event


class Scene:
    """A power loss whose kills and restarts are written down."""

    def __init__(self):
        self.done = []
        self.loss = PowerLoss(
            owner="changhe",
            from_round=3,
            cohort=5,
            kill=lambda: self.done.append("kill"),
            restart=lambda: self.done.append("restart"),
            say=lambda _text: None,
        )

    def tell(self, *events):
        for entry in events:
            self.loss.take(entry)


def step(number, name, cohort=5):
    return event("step", round=number, step=name, cohort=cohort)


def test_the_member_is_killed_when_its_round_comes_to_the_upload_and_started_again_at_once():
    scene = Scene()
    scene.tell(step(2, "input"), step(3, "share"))
    assert scene.done == []
    scene.tell(step(3, "input"))
    assert scene.done == ["kill", "restart"]
    scene.tell(event("dropped", round=3, step="input", owner="birken"))
    assert not scene.loss.happened()
    scene.tell(event("dropped", round=3, step="input", owner="changhe"))
    assert scene.loss.happened()
    scene.tell(step(4, "input"), step(5, "input"))
    assert scene.done == ["kill", "restart"]


def test_a_round_without_the_full_cohort_is_left_in_peace():
    scene = Scene()
    scene.tell(step(3, "input", cohort=4))
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
    scene.tell(step(3, "input"), ending)
    assert scene.done == ["kill", "restart"]
    assert not scene.loss.happened()
    scene.tell(step(4, "input", cohort=4), step(5, "input"))
    assert scene.done == ["kill", "restart"] * 2


def test_it_is_not_tried_for_ever():
    scene = Scene()
    for number in range(3, 30):
        scene.tell(step(number, "input"), event("round", round=number))
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
