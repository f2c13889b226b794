"""An anchor is the owner's word on where its ledger stood; nobody else can make one, and a shorter chain lacks it."""

from __future__ import annotations

import dataclasses

import pytest

from lepton_core.errors import IdentityError, InputError
from lepton_core.privacy.anchor import holds, identities_of, sign_anchor
from lepton_core.privacy.ledger import EMPTY
from tests.unit.privacy.test_ledger import GOOD, HEIR, KEY, RESERVED, chain, charge, succession

ANCHOR = sign_anchor(GOOD[1].head(), KEY.public, KEY.sign)


def test_an_anchor_is_held_by_the_chain_that_grew_from_it_and_by_no_other():
    assert holds(GOOD, ANCHOR)
    assert holds(GOOD[:2], ANCHOR)
    assert not holds(GOOD[:1], ANCHOR)
    assert not holds([], ANCHOR)
    other = chain(*((charge(number, job="b"), RESERVED) for number in range(1, 9)))
    assert not holds(other, ANCHOR)
    empty = sign_anchor(EMPTY, KEY.public, KEY.sign)
    assert holds([], empty)
    assert holds(GOOD, empty)


def test_only_the_owner_can_sign_an_anchor():
    ANCHOR.require_signed()
    for change in ({"sequence": 1}, {"digest": GOOD[2].digest()}, {"identity": HEIR.public}, {"signature": bytes(64)}):
        with pytest.raises(IdentityError):
            dataclasses.replace(ANCHOR, **change).require_signed()


@pytest.mark.parametrize(
    "change", [{"sequence": -1}, {"sequence": 2**53 + 1}, {"digest": "x"}, {"identity": b"k"}, {"signature": b""}]
)
def test_what_no_ledger_can_have_is_no_anchor(change):
    with pytest.raises(InputError):
        dataclasses.replace(ANCHOR, **change)


def test_a_successor_knows_the_identities_before_it():
    assert identities_of(succession(GOOD), HEIR.public) == (KEY.public, HEIR.public)
    assert identities_of(GOOD, KEY.public) == (KEY.public,)


def test_no_digest_of_the_ledger_itself_is_in_it():
    assert ANCHOR.digest not in {entry.digest() for entry in GOOD}


def test_its_signature_is_in_no_repr():
    assert "signature" not in repr(ANCHOR)
