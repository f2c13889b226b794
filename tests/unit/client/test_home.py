"""Does a client's folder hold what was accepted, and tell what is wrong with it?"""

from __future__ import annotations

import json

import pytest

from lepton_client.home import Home, load_identity, load_settings, save_identity, save_settings
from lepton_client.ledger import FileLedger, derive_run
from lepton_client.membership import accept, load_accepted
from lepton_client.records import AcceptedJob, FileRecords
from lepton_client.status import status
from lepton_core.errors import IdentityError, InputError, PolicyRefusal, SettingsError
from lepton_core.identity import fingerprint
from lepton_core.privacy.ledger import ADD_OR_REMOVE, UNIT_RECORD, Charge
from lepton_pool.promise import round_event
from tests.protocol.seeded import make_identities
from tests.unit.client.owners import JOB_ID, PLAN, VOCABULARY, FakeClock, Federation, make_list

POLICY = f"""
[peers]
federation_key = "{{key}}"
minimum_cohort = 3
[[populations]]
name = "patients"
mapping = "mapping.yaml"
declared_rows = 100
epsilon = 8.0
delta = 1e-3
[jobs]
purposes = ["research"]
concepts = ["{VOCABULARY}*"]
models = ["logistic"]
expires = 2030-01-01
"""


@pytest.fixture
def federation() -> Federation:
    return Federation()


def make_home(folder, federation) -> Home:
    """The folder of the federation's first owner, without a list."""
    home = Home(folder)
    folder.mkdir(exist_ok=True)
    save_settings(home, "aurora")
    save_identity(home, federation.identities[0], "aurora")
    (folder / "policy.toml").write_text(POLICY.format(key=federation.key.public.hex()))
    return home


@pytest.fixture
def home(tmp_path, federation) -> Home:
    return make_home(tmp_path, federation)


def write_list(home: Home, signed) -> object:
    path = home.folder / "signed.json"
    path.write_bytes(signed.to_json())
    return path


def test_the_identity_is_private_and_its_card_is_public(home, federation) -> None:
    identity = federation.identities[0]
    assert load_identity(home).public == identity.public
    assert home.identity.stat().st_mode & 0o777 == 0o600
    card = json.loads(home.card.read_text())
    assert card == {
        "owner": "aurora",
        "member": identity.member.hex(),
        "identity": identity.public.hex(),
        "fingerprint": fingerprint(identity.public),
    }


def test_a_folder_that_is_no_clients_is_told(tmp_path) -> None:
    with pytest.raises(InputError, match="no client lives here"):
        load_settings(Home(tmp_path))
    with pytest.raises(InputError, match="protocol identity"):
        load_identity(Home(tmp_path))


def test_wrong_settings_are_told_by_their_keys(home) -> None:
    home.settings.write_text('owner = "Not A Name"\npolicies = "x"\n')
    with pytest.raises(SettingsError) as wrong:
        load_settings(home)
    assert "owner" in str(wrong.value)
    assert "did you mean 'policy'" in str(wrong.value)


def test_a_list_signed_by_the_policys_federation_key_is_accepted(home, federation) -> None:
    assert load_accepted(home) is None
    members = accept(home, write_list(home, federation.signed), clock=FakeClock())
    assert members == federation.signed.members
    assert load_accepted(home) == federation.signed


def test_a_list_of_another_key_an_expired_one_and_an_older_one_are_refused(home, federation) -> None:
    forged = make_list(federation.identities, federation.identities[0])
    with pytest.raises(IdentityError) as another_key:
        accept(home, write_list(home, forged), clock=FakeClock())
    assert another_key.value.reason == "BAD_SIGNATURE"
    expired = make_list(federation.identities, federation.key, expires=1)
    with pytest.raises(IdentityError) as late:
        accept(home, write_list(home, expired), clock=FakeClock())
    assert late.value.reason == "EXPIRED"
    newer = make_list(federation.identities, federation.key, version=2)
    accept(home, write_list(home, newer), clock=FakeClock())
    with pytest.raises(IdentityError) as older:
        accept(home, write_list(home, federation.signed), clock=FakeClock())
    assert older.value.reason == "REPLAYED"
    forked = make_list(federation.identities[1:], federation.key, version=2)
    with pytest.raises(IdentityError) as fork:
        accept(home, write_list(home, forked), clock=FakeClock())
    assert fork.value.reason == "FORKED"
    assert load_accepted(home) == newer


def test_a_policy_with_pinned_members_accepts_no_list(home, federation) -> None:
    keys = ", ".join(f'"{key.public.hex()}"' for key in federation.identities)
    text = POLICY.replace('federation_key = "{key}"', f"members = [{keys}]")
    (home.folder / "policy.toml").write_text(text)
    with pytest.raises(PolicyRefusal) as pinned:
        accept(home, write_list(home, federation.signed))
    assert pinned.value.reason == "NO_FEDERATION_KEY"


def test_the_status_tells_what_is_spent_and_left(home, federation) -> None:
    accept(home, write_list(home, federation.signed), clock=FakeClock())
    identity, job = federation.identities[0], federation.job
    records = FileRecords(home.jobs, home.answers)
    records.accept(AcceptedJob(JOB_ID, job, federation.signed, PLAN))
    ledger = FileLedger(home.ledger, identity, FakeClock())
    run = derive_run(JOB_ID, job)
    ledger.reserve(Charge("patients", UNIT_RECORD, ADD_OR_REMOVE, run, 1, round_event(job), 1e-3, PLAN))
    told = status(home.folder)  # while another process holds the files
    ledger.close()
    records.close()
    assert told["owner"] == "aurora"
    assert told["fingerprint"] == fingerprint(identity.public)
    assert told["membership"]["members"] == 4
    (population,) = told["populations"]
    assert 0 < population["epsilon_spent"] < population["epsilon_budget"]
    assert population["epsilon_left"] == pytest.approx(8.0 - population["epsilon_spent"])
    (known,) = told["jobs"]
    assert (known["job"], known["state"], known["rounds_charged"]) == (JOB_ID, "open", 1)
    json.dumps(told)


def test_the_status_refuses_a_ledger_that_was_changed(home, federation) -> None:
    ledger = FileLedger(home.ledger, make_identities(1, "somebody")[0], FakeClock())
    run = derive_run(JOB_ID, federation.job)
    event = round_event(federation.job)
    ledger.reserve(Charge("patients", UNIT_RECORD, ADD_OR_REMOVE, run, 1, event, 1e-3, PLAN))
    ledger.close()
    with pytest.raises(IdentityError):
        status(home.folder)
