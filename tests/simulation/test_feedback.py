"""Error feedback in a hostile world: nothing of an update that counted is lost or sent twice, whoever dies when."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_client.residuals import Kept, MemoryResiduals, Slot
from lepton_core.ids import JobId
from lepton_core.views import JobState
from lepton_pool.plain import parse_plain
from tests.simulation.federation import Faults, Federation, Member
from tests.simulation.test_federation import decode_facts, require_ended_well

WORLDS = 30
HOSTILE = Faults(lost=0.03, doubled=0.05, late=0.02, coordinator_crash=0.02, member_crash=0.03, disconnect=0.01)
#: As many features as a world has members.
WEIGHTS = range(4)


class RememberedResiduals(MemoryResiduals):
    """Residuals, and what they were when the job was over."""

    def __init__(self) -> None:
        super().__init__()
        self.settled: list[Kept] = []
        self.pending_at_end: Kept | None = None

    def settle(self, job: JobId) -> None:
        if self.mark(job, Slot.PENDING) is not None:
            self.settled.append(self.read(job, Slot.PENDING))
        super().settle(job)

    def forget(self, job: JobId) -> None:
        if self.mark(job, Slot.PENDING) is not None:
            self.pending_at_end = self.read(job, Slot.PENDING)
        super().forget(job)


def update_of(person: Member, version: int) -> np.ndarray:
    length = 1 + len(WEIGHTS)
    return (0.3 * np.random.default_rng([person.index, version]).standard_normal(length)).astype(np.float32)


@pytest.mark.parametrize("codec", ["topk", "sign"])
def test_what_was_kept_and_what_counted_are_the_sum_of_all_updates_that_counted(codec: str) -> None:
    finished = crashes = aborted = 0
    for seed in range(WORLDS):
        world = Federation(
            seed=seed,
            members=len(WEIGHTS),
            min_cohort=len(WEIGHTS),
            rounds=3,
            secure=False,
            codec=codec,
            faults=HOSTILE,
            residuals=RememberedResiduals,
            update_of=update_of,
        )
        view = world.run()
        require_ended_well(view)
        completed = {row.model_version: row.round for row in view.rounds if row.state == "completed"}
        assert all(len(row.survivors) == len(WEIGHTS) for row in view.rounds if row.state == "completed")
        job = decode_facts(world).job
        sent_by_all = np.zeros(1 + len(WEIGHTS))
        for person in world.people.values():
            kept = _counted(person, completed)
            assert [one.mark.version for one in kept] == sorted(completed), "each round that counted, once"
            updates = sum(_clipped(update_of(person, version)) for version in completed)
            sent = sum(parse_plain(job, one.words.astype("<u8").tobytes())[0].astype(np.float64) for one in kept)
            if kept:
                assert kept[-1].residual == pytest.approx(updates - sent, abs=1e-5)
                sent_by_all += sent
        moved = world._weights(view.models[-1].digest) - world._weights(view.models[0].digest)
        assert moved == pytest.approx(sent_by_all / len(WEIGHTS), abs=1e-5), "what counted is what members settled"
        finished += view.state is JobState.FINISHED
        crashes += world.member_crashes + world.coordinator_crashes
        aborted += sum(row.state == "aborted" for row in view.rounds)
    assert finished >= WORLDS // 2, f"only {finished} of {WORLDS} jobs survived a world that turns quiet"
    assert crashes > WORLDS
    assert aborted > 0


def _counted(person: Member, completed: dict[int, int]) -> list[Kept]:
    """What the member settled; the last round's is still pending if the job ended before the word of it came."""
    residuals = person.residuals
    assert isinstance(residuals, RememberedResiduals)
    kept = list(residuals.settled)
    left = [JobId(job) for job, slot in residuals._kept if slot is Slot.PENDING]
    last = residuals.read(left[0], Slot.PENDING) if left else residuals.pending_at_end
    if completed and last is not None and last.mark.round == completed[max(completed)] and len(kept) < len(completed):
        kept.append(last)
    return kept


def _clipped(update: np.ndarray) -> np.ndarray:
    exact = update.astype(np.float64)
    return exact * min(1.0, 1.0 / float(np.linalg.norm(exact)))
