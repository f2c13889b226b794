"""Rounds are reserved in blocks; what provably never began is given back, after a stop, a crash, a job's end."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest

from lepton_client.ledger import FileLedger, MemoryLedger, derive_run, read_ledger
from lepton_core.errors import ConflictError, FaultError
from lepton_core.ids import Digest
from lepton_core.privacy.events import SampledGaussian
from lepton_core.privacy.ledger import ADD_OR_REMOVE, UNIT_RECORD, Charge, spent_events, verify
from lepton_core.secagg.messages import InputTrailer
from lepton_core.session import JobClosed, Published, RoundClosed, RoundOutcome
from tests.protocol.seeded import make_identities
from tests.unit.client.owners import JOB_ID, PLAN, FakeClock, Federation, make_job, make_updates

EVENT = SampledGaussian(4.0, 0.25, 10)
RUN = Digest("1" * 64)
IDENTITY = make_identities(1, "owner")[0]


def charge(number: int, **changes) -> Charge:
    return replace(Charge("patients", UNIT_RECORD, ADD_OR_REMOVE, RUN, number, EVENT, 1e-3, PLAN), **changes)


def opened(path: Path, disk=None) -> FileLedger:
    return FileLedger(path, IDENTITY, FakeClock(), *([] if disk is None else [disk]))


def told(ledger) -> list[tuple[str, int, int]]:
    return [(entry.state.name, entry.charge.round, entry.rounds) for entry in ledger.entries]


def train(ledger, *numbers: int, block: int = 20) -> None:
    """Rounds that were trained and sent."""
    for number in numbers:
        ledger.reserve(charge(number), rounds=block)
        ledger.spend(charge(number))


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "ledger.jsonl"


def test_a_blocks_rounds_cost_no_entry_before_their_noise_and_one_before_their_bytes(path) -> None:
    ledger = opened(path)
    sizes = []
    for number in range(1, 22):
        before = path.stat().st_size
        ledger.reserve(charge(number), rounds=20)
        sizes.append(path.stat().st_size - before)
        ledger.spend(charge(number))
    assert [number for number, size in enumerate(sizes, 1) if size] == [1, 21]
    assert len(ledger.entries) == 2 + 21
    assert ledger.charged_rounds(RUN) == 40
    ledger.close()
    verify(read_ledger(path, IDENTITY.public), IDENTITY.public)


def test_a_round_that_came_to_nothing_is_lost_before_the_next_one_begins(path) -> None:
    ledger = opened(path)
    train(ledger, 1)
    ledger.reserve(charge(2), rounds=20)
    ledger.reserve(charge(5), rounds=20)
    assert told(ledger)[2:] == [("LOST", 2, 1)]
    with pytest.raises(ConflictError) as gone:
        ledger.spend(charge(2))
    assert gone.value.reason == "NOT_RESERVED"
    with pytest.raises(ConflictError) as twice:
        ledger.reserve(charge(2), rounds=20)
    assert twice.value.reason == "CHARGED_TWICE"
    ledger.spend(charge(5))
    ledger.release(RUN)
    assert told(ledger)[3:] == [("SPENT", 5, 1), ("RELEASED", 0, 17)]
    assert ledger.charged_rounds(RUN) == 3


def test_a_released_run_may_go_on_with_a_block_of_its_own(path) -> None:
    ledger = opened(path)
    train(ledger, 1, block=5)
    ledger.release(RUN)
    ledger.release(RUN)
    train(ledger, 2, block=5)
    assert told(ledger) == [
        ("RESERVED", 1, 5),
        ("SPENT", 1, 1),
        ("RELEASED", 0, 4),
        ("RESERVED", 2, 5),
        ("SPENT", 2, 1),
    ]
    assert spent_events(ledger.entries, "patients") == [EVENT] * 6


@pytest.mark.parametrize("died", ["before noise", "after noise", "after bytes"])
def test_a_crash_costs_one_round_and_never_less_than_what_began(path, died) -> None:
    ledger = opened(path)
    train(ledger, 1)
    if died != "before noise":
        ledger.reserve(charge(2), rounds=20)
    if died == "after bytes":
        ledger.spend(charge(2))
    ledger.close()
    again = opened(path)
    assert again.charged_rounds(RUN) == 20
    assert again.reserved_rounds(RUN) == (17 if died == "after bytes" else 18)
    again.release(RUN)
    # Nobody can tell whether a round had begun beyond those that are SPENT: one counts.
    assert told(again)[-2][0:2] == ("LOST", 0)
    assert again.charged_rounds(RUN) == (3 if died == "after bytes" else 2)
    again.close()


def test_crash_after_crash_without_a_round_between_costs_no_more(path) -> None:
    ledger = opened(path)
    train(ledger, 1)
    ledger.reserve(charge(2), rounds=20)
    ledger.close()
    for _ in range(5):
        opened(path).close()
    again = opened(path)
    train(again, 3)
    again.release(RUN)
    assert told(again)[2:] == [("LOST", 0, 1), ("SPENT", 3, 1), ("RELEASED", 0, 17)]
    again.close()


def test_a_stop_in_good_order_gives_everything_back_that_never_began(path) -> None:
    ledger = opened(path)
    train(ledger, 1)
    other = charge(1, job=Digest("2" * 64))
    ledger.reserve(other, rounds=3)
    ledger.settle()
    ledger.close()
    again = opened(path)
    assert (again.charged_rounds(RUN), again.charged_rounds(other.job)) == (1, 1)
    assert told(again)[-3:] == [("RELEASED", 0, 19), ("LOST", 1, 1), ("RELEASED", 0, 2)]
    again.settle()
    assert len(again.entries) == 6
    again.close()


def test_a_run_is_charged_alike_in_every_round() -> None:
    ledger = MemoryLedger(IDENTITY, FakeClock())
    train(ledger, 1)
    for other in (charge(2, event=SampledGaussian(9.0, 0.25, 10)), charge(2, delta=1e-4)):
        with pytest.raises(ConflictError, match="charged alike"):
            ledger.reserve(other, rounds=50)
    verify(ledger.entries, IDENTITY.public)


def test_a_disk_that_fails_leaves_the_ledger_as_it_was_and_takes_the_next_entry(path) -> None:
    from lepton_client.disk import SystemDisk

    class Full(SystemDisk):
        full = False

        def sync(self, file: int) -> None:
            if self.full:
                raise OSError(28, "No space left on device")
            super().sync(file)

    disk = Full()
    ledger = opened(path, disk)
    train(ledger, 1)
    before = path.read_bytes()
    ledger.reserve(charge(2), rounds=20)
    disk.full = True
    for refused in (lambda: ledger.spend(charge(2)), lambda: ledger.release(RUN), lambda: ledger.reserve(charge(3))):
        with pytest.raises(FaultError, match="No space left"):
            refused()
    assert path.read_bytes() == before
    disk.full = False
    ledger.spend(charge(2))
    ledger.close()
    assert told(opened(path))[-1] == ("SPENT", 2, 1)


def test_a_line_that_can_neither_be_kept_nor_taken_back_ends_all_charging(path) -> None:
    from lepton_client.disk import SystemDisk

    class Broken(SystemDisk):
        broken = False

        def sync(self, file: int) -> None:
            if self.broken:
                raise OSError(5, "Input/output error")
            super().sync(file)

        def truncate(self, file: int, length: int) -> None:
            if self.broken:
                raise OSError(5, "Input/output error")
            super().truncate(file, length)

    disk = Broken()
    ledger = opened(path, disk)
    train(ledger, 1)
    ledger.reserve(charge(2), rounds=20)
    disk.broken = True
    with pytest.raises(FaultError):
        ledger.spend(charge(2))
    disk.broken = False
    with pytest.raises(FaultError, match="cannot write"):
        ledger.spend(charge(2))
    ledger.close()
    verify(read_ledger(path, IDENTITY.public), IDENTITY.public)


# Published and not -----------------------------------------------------------------------------------------------


def test_rounds_that_were_never_published_are_counted_across_restarts(path) -> None:
    ledger = opened(path)
    train(ledger, 1, 2)
    ledger.publish(RUN, 1)
    ledger.publish(RUN, 1)
    ledger.publish(RUN, 7)
    assert ledger.unpublished_rounds(RUN) == 1
    train(ledger, 3)
    ledger.publish(RUN, 3)
    assert ledger.unpublished_rounds(RUN) == 1
    ledger.reserve(charge(4), rounds=20)
    assert ledger.unpublished_rounds(RUN) == 2
    ledger.close()
    again = opened(path)
    # That round 3 was published is in no entry, and a round may have died.
    assert again.unpublished_rounds(RUN) == 3
    assert [entry.published for entry in again.entries] == [0, 0, 0, 1]
    again.close()


def closing(number: int, outcome: RoundOutcome = RoundOutcome.COMPLETED) -> RoundClosed:
    return RoundClosed(JOB_ID, number, outcome, "", Published(Digest("c" * 64), b"link"))


def test_a_job_whose_sums_are_published_runs_to_its_end_and_gives_its_rest_back() -> None:
    federation = Federation(job=make_job(training={"rounds": 6}))
    federation.match_all()
    owner = federation.first()
    run = derive_run(JOB_ID, federation.job)
    for number in range(1, 6):
        assert federation.round(number, number - 1, make_updates(federation)).result is not None
        for each in federation.owners.values():
            each.participant.handle(closing(number))
    assert (owner.ledger.charged_rounds(run), owner.ledger.unpublished_rounds(run)) == (6, 0)
    owner.participant.handle(JobClosed(JOB_ID, "aborted", ""))
    assert (owner.ledger.charged_rounds(run), owner.ledger.entries[-1].published) == (5, 5)
    assert told(owner.ledger)[-1] == ("RELEASED", 0, 1)


def test_a_job_that_charges_and_never_publishes_is_left_after_its_share() -> None:
    federation = Federation(job=make_job(training={"rounds": 30}, privacy={"noise_multiplier": 40.0}))
    federation.match_all()
    owner = federation.first()
    refused = {}
    for number in range(1, 7):
        lose = {key.member: InputTrailer for key in federation.identities[2:]}
        done = federation.round(number, 0, make_updates(federation), lose=lose)
        owner.participant.handle(closing(number, RoundOutcome.ABORTED))
        if owner.identity.member in done.refusals:
            refused[number] = done.refusals[owner.identity.member].refusal
    # 5 % of 30 are less than 3 rounds, which every job may lose.
    assert set(refused) == {4, 5, 6}
    assert {(one.code, one.reason, one.subject) for one in refused.values()} == {
        ("refused", "TOO_MANY_UNPUBLISHED", "policy.jobs.max_unreleased_fraction")
    }
    run = derive_run(JOB_ID, federation.job)
    assert owner.ledger.unpublished_rounds(run) == 3
    assert owner.ledger.charged_rounds(run) == 20


def test_an_owner_that_tolerates_no_lost_round_leaves_after_the_first() -> None:
    federation = Federation(jobs={"max_unreleased_fraction": 0.0})
    federation.match_all()
    lose = {key.member: InputTrailer for key in federation.identities[2:]}
    first = federation.round(1, 0, make_updates(federation), lose=lose)
    second = federation.round(2, 0, make_updates(federation))
    member = federation.first().identity.member
    assert member not in first.refusals
    assert second.refusals[member].refusal.reason == "TOO_MANY_UNPUBLISHED"


def test_a_coordinator_that_calls_a_round_complete_too_early_does_not_move_the_count() -> None:
    federation = Federation()
    federation.match_all()
    lose = {key.member: InputTrailer for key in federation.identities[2:]}
    federation.round(1, 0, make_updates(federation), lose=lose)
    owner = federation.first()
    owner.participant.handle(closing(1))
    assert owner.ledger.unpublished_rounds(derive_run(JOB_ID, federation.job)) == 1


# Jobs -------------------------------------------------------------------------------------------------------------


def test_what_a_dead_daemon_left_reserved_is_given_back_at_the_next_start_if_the_job_is_over(tmp_path) -> None:
    federation = Federation()
    federation.match_all()
    owner = federation.first()
    federation.round(1, 0, make_updates(federation))
    run = derive_run(JOB_ID, federation.job)
    owner.records.close_job(JOB_ID, "aborted")  # durable, and then the process died
    assert owner.ledger.charged_rounds(run) == 3
    owner.restart()
    owner.participant.resume()
    assert owner.ledger.charged_rounds(run) == 1


def test_a_full_disk_when_a_job_ends_keeps_the_rest_charged_and_ends_the_job() -> None:
    federation = Federation()
    federation.match_all()
    owner = federation.first()
    federation.round(1, 0, make_updates(federation))

    def full(_: object) -> None:
        raise FaultError("full")

    run = derive_run(JOB_ID, federation.job)
    with contextlib.ExitStack() as stack:
        owner.ledger._keep = full
        stack.callback(lambda: delattr(owner.ledger, "_keep"))
        owner.participant.handle(JobClosed(JOB_ID, "finished", ""))
    assert owner.records.jobs()[JOB_ID].closed == "finished"
    assert owner.ledger.charged_rounds(run) == 3
    owner.participant.resume()
    assert owner.ledger.charged_rounds(run) == 1
