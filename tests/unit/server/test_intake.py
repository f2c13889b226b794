"""A job that can never run is refused when it is handed in, with what to change."""

from __future__ import annotations

import pytest

from lepton_core.errors import JobError
from lepton_core.ids import OwnerName
from tests.simulation.federation import Federation, make_job


def submit(members: int, codec: str) -> None:
    """Hand a job with rounds of so many members to a federation of four."""
    job = make_job(rounds=2, members=members, min_cohort=members, secure=False, codec=codec)
    Federation(seed=1, members=4).coordinator.submit(job.canonical(), OwnerName("rosa"))


@pytest.mark.parametrize("codec", ["topk", "sign"])
def test_a_job_that_feeds_back_and_leaves_members_out_is_refused(codec: str) -> None:
    with pytest.raises(JobError, match="every member in every round") as refused:
        submit(3, codec)
    assert refused.value.where == "aggregation.max_cohort"
    assert refused.value.expected == "min_cohort and max_cohort of 4, all members on the list, each enrolled"
    assert refused.value.got == "3, and 4 enrolled"
    assert "eden" in refused.value.hint


def test_a_job_of_all_members_may_feed_back_and_one_that_does_not_may_leave_some_out() -> None:
    submit(4, "topk")
    submit(3, "eden")
