"""The highest place of each owner's ledger is kept and given back, and one that goes backwards is an alarm, once."""

from __future__ import annotations

import pytest

from lepton_core.errors import IdentityError
from lepton_core.identity import IdentityKey
from lepton_core.ids import Digest, OwnerName
from lepton_core.privacy.anchor import LedgerAnchor, sign_anchor
from lepton_core.privacy.entries import LedgerHead
from lepton_server.audit import verify_audit
from lepton_server.identity.anchors import WRITE_EVERY_S, Anchors
from lepton_server.store.memory import MemoryStore
from tests.protocol.seeded import make_identities
from tests.unit.client.owners import FakeClock

KEY, HEIR = make_identities(2, "anchored")
AURORA = OwnerName("aurora")


def anchor(sequence: int, digit: str = "", key: IdentityKey = KEY) -> LedgerAnchor:
    head = LedgerHead(sequence, Digest((digit or f"{sequence % 10}") * 64))
    return sign_anchor(head, key.public, key.sign)


class Kept:
    """A coordinator's anchors; `restart` forgets what was not written down."""

    def __init__(self) -> None:
        self.store, self.clock = MemoryStore(), FakeClock()
        self.restart()

    def restart(self) -> None:
        self.anchors = Anchors(self.store, self.clock)

    def take(self, told: LedgerAnchor, key: IdentityKey = KEY) -> None:
        self.anchors.take(AURORA, key.member, told)

    def audited(self) -> list[str]:
        with self.store.transaction() as tx:
            verify_audit(tx.audit())
            return [f"{row.actor} {row.action}" for row in tx.audit()]


@pytest.fixture
def kept() -> Kept:
    return Kept()


def test_the_highest_is_kept_and_given_back_to_its_owner_alone(kept) -> None:
    assert kept.anchors.given_back(AURORA) == ()
    for sequence in (0, 1, 5):
        kept.take(anchor(sequence))
    assert kept.anchors.given_back(AURORA) == (anchor(5),)
    assert kept.anchors.given_back(OwnerName("birken")) == ()
    assert kept.anchors.alarms() == {}
    assert kept.audited() == []


def test_a_moving_head_is_written_down_now_and_then_and_before_a_stop(kept) -> None:
    kept.take(anchor(1))
    kept.clock.time += WRITE_EVERY_S / 2
    kept.take(anchor(2))
    kept.restart()  # a crash: what is given back is behind the ledger, which is no alarm
    assert kept.anchors.given_back(AURORA) == (anchor(1),)
    kept.take(anchor(3))
    kept.anchors.flush()
    kept.restart()
    assert kept.anchors.given_back(AURORA) == (anchor(3),)
    kept.clock.time += WRITE_EVERY_S
    kept.take(anchor(4))
    kept.restart()
    assert kept.anchors.given_back(AURORA) == (anchor(4),)


@pytest.mark.parametrize("told", [anchor(4), anchor(0), anchor(5, "f")])
def test_a_head_that_goes_backwards_or_aside_is_an_alarm_once_and_what_is_kept_stays(kept, told) -> None:
    kept.take(anchor(5))
    for _ in range(3):
        kept.take(told)
        kept.restart()
    assert kept.audited() == ["aurora ledger.behind"]
    assert kept.anchors.given_back(AURORA) == (anchor(5),)
    (words,) = kept.anchors.alarms().values()
    assert f"{told.sequence} entries, 5 were signed" in words


def test_an_alarm_ends_when_the_ledger_is_back(kept) -> None:
    kept.take(anchor(5))
    kept.take(anchor(2))
    kept.take(anchor(5))
    assert kept.anchors.alarms() == {}
    kept.take(anchor(3))
    kept.take(anchor(9))
    assert kept.audited() == ["aurora ledger.behind", "aurora ledger.recovered"] * 2
    kept.restart()
    assert kept.anchors.alarms() == {}
    assert kept.anchors.given_back(AURORA) == (anchor(9),)


def test_nobody_tells_of_another_members_ledger_or_without_a_signature(kept) -> None:
    kept.take(anchor(5))
    forged = LedgerAnchor(KEY.public, 9, Digest("9" * 64), bytes(64))
    for told, key in ((anchor(9, key=HEIR), KEY), (anchor(9), HEIR), (forged, KEY)):
        with pytest.raises(IdentityError):
            kept.take(told, key)
    assert kept.anchors.given_back(AURORA) == (anchor(5),)


def test_an_owner_that_enrolled_anew_is_given_back_the_places_of_its_old_identity_too(kept) -> None:
    kept.take(anchor(5))
    kept.take(anchor(1, key=HEIR), HEIR)
    assert set(kept.anchors.given_back(AURORA)) == {anchor(5), anchor(1, key=HEIR)}
