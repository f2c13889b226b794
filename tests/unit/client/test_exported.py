"""An owner's ledger as it is shown and exported: everything is checked, and nothing can be changed or cut off."""

from __future__ import annotations

import json

import pytest

from lepton_client.exported import export_ledger, verify_export, verify_home
from lepton_client.home import Home
from lepton_client.ledger import FileLedger, derive_run
from lepton_client.records import AcceptedJob, FileRecords
from lepton_client.spending import spending
from lepton_core.errors import ConflictError, IdentityError, InputError
from lepton_core.identity import fingerprint
from lepton_core.ids import Digest
from lepton_core.privacy.accountant import epsilon_of
from lepton_core.privacy.events import Replaced, SampledGaussian, SummedDiscreteGaussian
from lepton_core.privacy.ledger import ADD_OR_REMOVE, UNIT_RECORD, Charge
from lepton_pool.promise import rounds_event
from tests.unit.client.owners import JOB_ID, PLAN, FakeClock, Federation
from tests.unit.client.test_home import make_home

LOCAL = SampledGaussian(4.0, 0.25, 10)
SUM = SummedDiscreteGaussian(
    sensitivity=1000.0, share_variance=10**8, contributors=10, colluders=2, dimension=4096, steps=1
)


@pytest.fixture(scope="module")
def federation() -> Federation:
    return Federation()


@pytest.fixture
def home(tmp_path, federation) -> Home:
    """Three rounds of one job, of which two have left, and two of another that nobody knows any more."""
    home = make_home(tmp_path / "aurora", federation)
    records = FileRecords(home.jobs, home.answers)
    records.accept(AcceptedJob(JOB_ID, federation.job, federation.signed, PLAN))
    records.close()
    ledger = FileLedger(home.ledger, federation.identities[0], FakeClock())
    known = derive_run(JOB_ID, federation.job)
    for run, number, event, left in (
        (known, 1, LOCAL, True),
        (known, 2, LOCAL, True),
        (known, 3, LOCAL, False),
        (Digest("9" * 64), 1, SUM, True),
        (Digest("9" * 64), 2, SUM, True),
    ):
        charge = Charge("patients", UNIT_RECORD, ADD_OR_REMOVE, run, number, event, 1e-3, PLAN)
        ledger.reserve(charge)
        if left:
            ledger.spend(charge)
    ledger.close()
    return home


def test_an_export_holds_the_ledger_and_whoever_has_it_can_check_it(home, tmp_path, federation) -> None:
    target = tmp_path / "ledger.json"
    written = export_ledger(home, target, FakeClock())
    assert target.stat().st_mode & 0o777 == 0o600
    read = verify_export(target)
    assert read.entries == written.entries == verify_home(home).entries
    assert read.head == written.head
    told = read.summary()
    assert told["owner"] == "aurora"
    assert told["fingerprint"] == fingerprint(federation.identities[0].public)
    assert (told["entries"], told["rounds_charged"]) == (9, 5)
    assert told["exported"] == FakeClock().now()
    json.dumps(told)


def test_an_export_never_replaces_a_file(home, tmp_path) -> None:
    target = tmp_path / "ledger.json"
    target.write_text("older")
    with pytest.raises(InputError, match="exists"):
        export_ledger(home, target, FakeClock())
    assert target.read_text() == "older"


def changed(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document["entries"].pop(),
        lambda document: document["entries"].pop(0),
        lambda document: document["entries"].reverse(),
        lambda document: document.update(sequence=8),
        lambda document: document.update(owner="birken"),
        lambda document: document.update(exported=0.0),
        lambda document: document.update(head="0" * 64),
        lambda document: document.update(signature="00" * 64),
    ],
)
def test_an_export_that_was_changed_is_not_believed(home, tmp_path, change) -> None:
    export_ledger(home, tmp_path / "ledger.json", FakeClock())
    with pytest.raises((IdentityError, ConflictError)):
        verify_export(changed(tmp_path / "ledger.json", change))


def test_an_export_cut_short_by_its_own_owner_ends_elsewhere_than_it_says(home, tmp_path, federation) -> None:
    from lepton_client import exported

    export_ledger(home, tmp_path / "ledger.json", FakeClock())
    document = json.loads((tmp_path / "ledger.json").read_text())
    del document["signature"], document["entries"][-1]
    (tmp_path / "short.json").write_bytes(exported._sealed(document, federation.identities[0]))
    with pytest.raises(ConflictError, match="end elsewhere"):
        verify_export(tmp_path / "short.json")


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b'{"signature": 3}', b'{"signature": ""}', b"\xff", b'{"format": "other", "signature": "00"}'],
)
def test_what_is_no_export_is_refused(tmp_path, content) -> None:
    (tmp_path / "ledger.json").write_bytes(content)
    with pytest.raises(InputError, match="not an exported"):
        verify_export(tmp_path / "ledger.json")


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.update(entries=3),
        lambda document: document.update(identity=3),
        lambda document: document.update(more=1),
        lambda document: document.pop("head"),
    ],
)
def test_an_export_of_another_form_is_refused(home, tmp_path, change) -> None:
    export_ledger(home, tmp_path / "ledger.json", FakeClock())
    with pytest.raises(InputError, match="not an exported"):
        verify_export(changed(tmp_path / "ledger.json", change))


def test_no_file_is_told_as_such(tmp_path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        verify_export(tmp_path / "missing.json")


def test_spending_tells_each_jobs_part_and_composes_the_whole(home) -> None:
    told = spending(home.folder)
    (population,) = told["populations"]
    events = [LOCAL] * 3 + [SUM] * 2
    assert population["rounds_charged"] == 5
    assert population["epsilon_spent"] == pytest.approx(epsilon_of(events, 1e-3))
    assert population["epsilon_against_sums"] < population["epsilon_spent"]
    first, other = told["jobs"]
    assert (first["job"], first["rounds_charged"], first["rounds_sent"]) == (JOB_ID, 3, 2)
    assert first["epsilon_alone"] == pytest.approx(epsilon_of([LOCAL] * 3, 1e-3))
    assert other["job"].startswith("unknown, run 9999")
    assert (other["rounds_charged"], other["rounds_sent"]) == (2, 2)
    assert max(first["epsilon_alone"], other["epsilon_alone"]) < population["epsilon_spent"]
    assert told["ledger_entries"] == 9
    json.dumps(told)


def test_a_ledger_without_entries_holds_and_has_spent_nothing(tmp_path, federation) -> None:
    home = make_home(tmp_path, federation)
    assert verify_home(home).summary()["entries"] == 0
    assert spending(tmp_path)["populations"][0]["epsilon_spent"] == 0.0
    export_ledger(home, tmp_path / "ledger.json", FakeClock())
    assert verify_export(tmp_path / "ledger.json").entries == ()


def test_the_plan_of_a_job_is_what_its_rounds_are_charged(federation) -> None:
    from lepton_core.privacy.plan import plan_local

    planned = plan_local(4.0, 1e-3, 25, local_steps=2, sampling_rate=0.5)
    spent = SampledGaussian(planned.noise_multiplier, 0.5, 50)
    assert planned.epsilon == epsilon_of([spent], 1e-3) <= 4.0
    assert [number for number, _ in planned.by_round] == sorted({number for number, _ in planned.by_round})
    assert planned.by_round[-1] == (25, planned.epsilon)
    assert len(planned.by_round) == 10
    assert planned.epsilon < planned.epsilon_if_replaced == epsilon_of([Replaced(spent)], 1e-3)
    assert rounds_event(federation.job, 3).steps == 6
