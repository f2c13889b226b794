"""Jobs and contributions that cannot be used, through real processes: a reason for each, and all stay up.

Where each kind of bad input is driven; what a test of this folder drives goes through real processes:

| bad input | test |
|---|---|
| wrong token, wrong CA, another owner's certificate | e2e/test_bad_input.py, integration/server/test_enrolment.py |
| unknown concept, unit that cannot convert, in a job | e2e/test_bad_input.py, integration/server/test_rights.py |
| unit that cannot convert, in a mapping | here, unit/admin/test_mapping_commands.py, unit/kg/test_plan.py |
| mapping for another ontology version | here, unit/admin/test_mapping_commands.py, unit/client/test_binding.py |
| job over the owner's budget | here, e2e/test_bad_input.py, unit/client/test_participant.py |
| upload of the wrong length | here, integration/server/test_transfer.py |
| NaN in an update | here (training that diverges), unit/client/test_participant.py, simulation/test_federation.py |
| nothing usable contributed, model unchanged | here, unit/server/test_job_machine.py, simulation/test_federation.py |
| port in use | e2e/test_bad_input.py, integration/server/test_app.py |
| missing file | here (an owner's source), e2e/test_bad_input.py, unit/client/test_binding.py |
"""

from __future__ import annotations

import re

import pytest

from lepton_protos.v1 import control_pb2, transfer_pb2
from tests.e2e.hospitals import LEARNING, REFUSING, ROUNDS, STEP_DEADLINE_S, WIDE

pytestmark = [pytest.mark.timeout(240), pytest.mark.xdist_group("hospitals")]

REFUSED = (REFUSING, "MISSING_CONCEPT", "https://example.org/hospitals/worst-concave-points")


@pytest.fixture(autouse=True)
def unharmed(hospitals):
    """Whatever a test does, the coordinator and the daemons are up afterwards, and no job is left running."""
    before = {name: hospitals.pid(name) for name in ("coordinator", *LEARNING, REFUSING)}
    yield
    health = hospitals.operator.health()
    assert (health.ready, health.problems, health.running_jobs) == (True, (), 0)
    assert {name: bool(hospitals.processes_of(name)) for name in before} == dict.fromkeys(before, True)
    hospitals.processes.check()


@pytest.mark.parametrize(
    ("population", "reason", "subject"),
    [
        ("unit", "UNIT_MISMATCH", "https://example.org/hospitals/mean-area"),
        ("version", "ONTOLOGY_MISMATCH", ""),
        ("file", "MISSING_FILE", ""),
        ("nobodys", "POPULATION", "policy.populations"),
    ],
)
def test_a_job_that_an_owner_cannot_serve_fails_and_names_owner_and_reason(hospitals, population, reason, subject):
    view = hospitals.ended(hospitals.submit(population=population))
    refused = {(match.owner, match.reason, match.subject) for match in view.owners if match.state == "cannot"}
    assert view.state.value == "failed"
    assert ("aurora", reason, subject) in refused
    if population == "nobodys":
        assert {refusal[1:] for refusal in refused} == {(reason, subject)}
    else:
        assert refused == {("aurora", reason, subject), REFUSED}
        assert view.reason.startswith("3 of at least 4 owners can take part")
        assert f"aurora: {reason} {subject}".strip() in view.reason
    assert (view.rounds, view.model_version) == ((), 0)


def test_a_job_over_the_owners_budget_is_refused_by_every_owner(hospitals, learnt):
    view = hospitals.ended(hospitals.submit())
    assert view.state.value == "failed"
    assert {(match.owner, match.code, match.reason) for match in view.owners} == {
        *((owner, "refused.budget", "BUDGET_EXCEEDED") for owner in LEARNING),
        (REFUSING, "refused.match", "MISSING_CONCEPT"),
    }
    assert view.rounds == ()


def test_an_upload_of_the_wrong_length_loses_its_round_and_the_next_one_is_whole(hospitals):
    proxy, others = hospitals.proxies["aurora"], [hospitals.proxies[owner] for owner in LEARNING[1:]]
    job = None
    cut = []

    def trailers(other):
        sent = [message for call in other.calls if call.method.endswith("/Session") for message in call.sent]
        batches = map(control_pb2.ReportBatch.FromString, sent)
        reports = [envelope.round_report for batch in batches for envelope in batch.reports]
        return [report for report in reports if report.job == job and report.HasField("input_trailer")]

    def shorten(method, message):
        if not method.endswith("/Put") or cut:
            return message
        chunk = transfer_pb2.UploadChunk.FromString(message)
        if chunk.header.job != job:
            return message
        cut.append(chunk.header.round)
        # After the others' inputs, so that the round has a contribution when it is lost.
        assert all(other.wait_until(lambda other=other: trailers(other), STEP_DEADLINE_S / 2) for other in others)
        chunk.header.size -= 8
        chunk.data = chunk.data[:-8]
        return chunk.SerializeToString()

    proxy.alter = shorten
    try:
        job = hospitals.submit(population="trial", model=WIDE)
        view = hospitals.ended(job)
    finally:
        proxy.alter = lambda _, message: message
    assert cut == [1]
    assert view.state.value == "finished", view.reason
    lost, *whole = view.rounds
    assert (lost.state, lost.survivors) == ("aborted", ())
    assert [(member.owner, member.step, member.reason) for member in lost.dropped] == [
        ("aurora", "input", "refused: WRONG_LENGTH")
    ]
    assert [(entry.state, entry.survivors) for entry in whole] == [("completed", LEARNING)] * ROUNDS
    assert [(model.version, model.round) for model in view.models] == [
        (n, n + 1 if n else 0) for n in range(ROUNDS + 1)
    ]


def test_training_that_runs_to_infinity_contributes_nothing_and_fails_the_job_after_its_first_round(hospitals):
    view = hospitals.ended(hospitals.submit(population="trial", training={"learning_rate": 1e300}))
    assert view.state.value == "failed"
    assert re.match(r"round 1: nothing usable was contributed: [a-z-]+: DIVERGED", view.reason)
    assert [(entry.round, entry.state, entry.survivors) for entry in view.rounds] == [(1, "aborted", ())]
    assert view.model_version == 0


def test_a_model_that_does_not_change_fails_the_job_after_its_first_round(hospitals):
    view = hospitals.ended(hospitals.submit(population="trial", training={"learning_rate": 1e-300}))
    assert view.state.value == "failed"
    assert view.reason == "round 1: the model did not change; nothing usable was contributed"
    assert [(entry.round, entry.state) for entry in view.rounds] == [(1, "completed")]
    assert view.model_version == 0
