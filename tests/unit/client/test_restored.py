"""A lost machine's ledger goes on under a new identity: the budget is kept, and nothing older or forged is believed."""

from __future__ import annotations

import io
import json

import pytest

from lepton_client.anchoring import Anchoring, save_anchor
from lepton_client.exported import _sealed, export_ledger, verify_export, verify_home
from lepton_client.home import Home, save_identity
from lepton_client.journal import Journal
from lepton_client.ledger import FileLedger
from lepton_client.logs import open_log
from lepton_client.restored import restore_ledger
from lepton_client.spending import spending
from lepton_core.errors import BudgetRefusal, ConflictError, IdentityError, InputError, LeptonError
from lepton_core.identity import fingerprint
from lepton_core.privacy.ledger import Succession
from tests.protocol.seeded import make_identities
from tests.unit.client.owners import FakeClock, Federation
from tests.unit.client.test_home import make_home
from tests.unit.client.test_ledger_blocks import RUN, charge

HEIR, THIRD = make_identities(2, "heir")


class Machines:
    """An owner's old machine with a ledger and its export, and a new one that was enrolled anew."""

    def __init__(self, folder, federation) -> None:
        self.folder = folder
        self.old = make_home(folder / "old", federation)
        self.identity = federation.identities[0]
        self.charge(1, 2)
        self.export = folder / "export.json"
        export_ledger(self.old, self.export, FakeClock())
        self.new = make_home(folder / "new", federation)
        save_identity(self.new, HEIR, "aurora")

    def charge(self, *numbers: int) -> None:
        ledger = FileLedger(self.old.ledger, self.identity, FakeClock())
        for number in numbers:
            ledger.reserve(charge(number), rounds=5)
            ledger.spend(charge(number))
        ledger.close()

    def restore(self, export=None, predecessor: str = ""):
        words = predecessor or fingerprint(self.identity.public)
        return restore_ledger(self.new, export or self.export, words, FakeClock())

    def opened(self) -> FileLedger:
        return FileLedger(self.new.ledger, HEIR, FakeClock())


@pytest.fixture
def machines(tmp_path) -> Machines:
    return Machines(tmp_path, Federation())


def test_the_new_identity_goes_on_with_the_old_chain_and_its_budget(machines) -> None:
    spent = spending(machines.old.folder)["populations"]
    old, new = machines.restore()
    assert new.entries[:-1] == old.entries == verify_home(machines.old).entries
    assert isinstance(new.entries[-1], Succession)
    assert (new.entries[-1].previous, new.entries[-1].predecessor) == (old.head.digest, machines.identity.public)
    assert spending(machines.new.folder)["populations"] == spent
    assert machines.new.ledger.stat().st_mode & 0o777 == 0o600
    ledger = machines.opened()
    assert ledger.charged_rounds(RUN) == 5
    ledger.release(RUN)
    assert ledger.charged_rounds(RUN) == 5, "what the lost machine had reserved stays charged"
    ledger.reserve(charge(9), rounds=2)
    ledger.spend(charge(9))
    ledger.close()
    verified = verify_home(machines.new)
    assert verified.summary()["predecessors"] == [fingerprint(machines.identity.public)]
    assert verified.summary()["rounds_charged"] == 7
    assert spending(machines.new.folder)["ledger_predecessors"] == [fingerprint(machines.identity.public)]
    # And an export of it can be restored once more.
    again = machines.folder / "again.json"
    export_ledger(machines.new, again, FakeClock())
    assert verify_export(again).entries == verified.entries
    third = make_home(machines.folder / "third", Federation())
    save_identity(third, THIRD, "aurora")
    restore_ledger(third, again, fingerprint(HEIR.public), FakeClock())
    assert len(verify_home(third).summary()["predecessors"]) == 2


def test_a_round_that_the_old_machine_sent_is_never_sent_by_the_new_one(machines) -> None:
    machines.restore()
    ledger = machines.opened()
    with pytest.raises(ConflictError) as twice:
        ledger.reserve(charge(2), rounds=5)
    assert twice.value.reason == "CHARGED_TWICE"
    ledger.close()


def test_an_export_older_than_what_the_coordinator_keeps_is_refused_as_soon_as_it_connects(machines) -> None:
    machines.charge(3)
    late = FileLedger(machines.old.ledger, machines.identity, FakeClock())
    kept = late.anchor()
    late.close()
    machines.restore()
    ledger, heard = machines.opened(), io.StringIO()
    anchoring = Anchoring(ledger, machines.new.anchor, open_log(heard))
    anchoring.given_back((kept,))
    with pytest.raises(BudgetRefusal) as behind:
        ledger.reserve(charge(9), rounds=2)
    assert behind.value.reason == "LEDGER_BEHIND"
    ledger.close()
    with pytest.raises(BudgetRefusal):
        verify_home(machines.new)


def test_an_export_as_new_as_what_the_coordinator_keeps_is_believed(machines) -> None:
    last = FileLedger(machines.old.ledger, machines.identity, FakeClock())
    kept = last.anchor()
    last.close()
    save_anchor(machines.new.anchor, kept)
    machines.restore()
    ledger = machines.opened()
    Anchoring(ledger, machines.new.anchor, open_log(io.StringIO())).given_back((kept,))
    ledger.reserve(charge(9), rounds=2)
    ledger.close()
    verify_home(machines.new)


def test_a_home_that_connected_before_it_was_restored_refuses_the_old_export_at_once(machines) -> None:
    machines.charge(3)
    late = FileLedger(machines.old.ledger, machines.identity, FakeClock())
    save_anchor(machines.new.anchor, late.anchor())
    late.close()
    with pytest.raises(BudgetRefusal):
        machines.restore()
    assert not machines.new.ledger.exists()


def test_an_export_that_is_forged_or_cut_or_somebody_elses_leaves_the_home_empty(machines) -> None:
    def changed(name: str, change, key=None):
        document = json.loads(machines.export.read_text())
        change(document)
        path = machines.folder / name
        if key is not None:
            del document["signature"]
            path.write_bytes(_sealed(document, key))
        else:
            path.write_text(json.dumps(document))
        return path

    liar = make_identities(1, "liar")[0]
    forged = [
        (changed("cut.json", lambda one: one["entries"].pop()), "", (IdentityError,)),
        (changed("signed-cut.json", lambda one: one["entries"].pop(), machines.identity), "", (ConflictError,)),
        (changed("other.json", lambda one: one.update(identity=liar.public.hex()), liar), "", (IdentityError,)),
        (changed("empty.json", lambda one: one.update(entries=[], sequence=0, head="0" * 64)), "", (IdentityError,)),
        (changed("owner.json", lambda one: one.update(owner="birken"), machines.identity), "", (InputError,)),
        (machines.export, fingerprint(liar.public), (IdentityError,)),
        (machines.folder / "missing.json", "", (InputError,)),
    ]
    # An empty ledger that a liar signed under a key of its own is an export like any: the fingerprint tells.
    own = changed(
        "own.json",
        lambda one: one.update(entries=[], sequence=0, head="0" * 64, identity=liar.public.hex()),
        liar,
    )
    verify_export(own)
    for path, predecessor, kinds in [*forged, (own, "", (IdentityError,))]:
        with pytest.raises(LeptonError) as refused:
            machines.restore(path, predecessor)
        assert isinstance(refused.value, kinds), path
        assert not machines.new.ledger.exists() or machines.new.ledger.read_bytes() == b""


def test_a_home_with_a_ledger_or_a_daemon_or_the_old_identity_is_left_alone(machines) -> None:
    with Journal(machines.new.ledger), pytest.raises(ConflictError) as running:
        machines.restore()
    assert running.value.reason == "LOCKED"
    ledger = machines.opened()
    ledger.reserve(charge(1), rounds=2)
    ledger.close()
    before = machines.new.ledger.read_bytes()
    with pytest.raises(ConflictError) as own:
        machines.restore()
    assert own.value.reason == "LEDGER_EXISTS"
    assert machines.new.ledger.read_bytes() == before
    save_identity(machines.old, machines.identity, "aurora")
    with pytest.raises(IdentityError) as same:
        restore_ledger(machines.old, machines.export, fingerprint(machines.identity.public), FakeClock())
    assert same.value.reason == "SAME_IDENTITY"
    with pytest.raises(InputError):
        restore_ledger(Home(machines.folder), machines.export, fingerprint(machines.identity.public), FakeClock())
