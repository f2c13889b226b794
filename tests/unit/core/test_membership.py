"""What is remembered of a membership list never outlives what it was worked out from."""

from __future__ import annotations

import copy

import pytest

from lepton_core.errors import IdentityError
from lepton_core.membership import SignedList, sign, verify
from tests.protocol.seeded import make_identities
from tests.unit.client.owners import make_list

FEDERATION, STRANGER, *MEMBERS = make_identities(6, "membership")


@pytest.fixture
def signed() -> SignedList:
    return make_list(MEMBERS, FEDERATION, issued=100, expires=200, version=3)


def verify_at(signed: SignedList, now: float, *, key: bytes = FEDERATION.public, version: int = 1) -> object:
    return verify(signed, key, now=now, at_least_version=version)


def test_a_list_that_held_before_is_still_asked_for_time_version_and_key(signed) -> None:
    assert verify_at(signed, 150.0) == verify_at(signed, 199.0) == signed.members
    for now, reason in ((200.0, "EXPIRED"), (99.0, "NOT_YET_ISSUED")):
        with pytest.raises(IdentityError) as refused:
            verify_at(signed, now)
        assert refused.value.reason == reason
    with pytest.raises(IdentityError) as older:
        verify_at(signed, 150.0, version=4)
    assert older.value.reason == "REPLAYED"
    with pytest.raises(IdentityError) as stranger:
        verify_at(signed, 150.0, key=STRANGER.public)
    assert stranger.value.reason == "BAD_SIGNATURE"


def test_another_list_under_a_signature_that_held_before_is_refused_every_time(signed) -> None:
    verify_at(signed, 150.0)
    longer = SignedList(signed.members.model_copy(update={"expires": 300}), signed.federation_public, signed.signature)
    for _ in range(2):
        with pytest.raises(IdentityError) as forged:
            verify_at(longer, 150.0)
        assert forged.value.reason == "BAD_SIGNATURE"


def test_a_changed_copy_of_a_list_has_its_own_digest_and_members(signed) -> None:
    members = signed.members
    before = members.canonical(), members.digest(), dict(members.admitted())
    revoked = members.model_copy(update={"revoked": (MEMBERS[0].public.hex(),)})
    assert MEMBERS[0].member not in revoked.admitted()
    assert revoked.canonical() != before[0]
    assert revoked.digest() != before[1]
    assert sign(revoked, FEDERATION).signature != signed.signature
    assert (members.canonical(), members.digest(), dict(members.admitted())) == before
    assert members.model_copy() == members


def test_nobody_can_add_a_member_to_what_a_list_admits(signed) -> None:
    with pytest.raises(TypeError):
        signed.members.admitted()[STRANGER.member] = STRANGER.public  # type: ignore[index]
    assert STRANGER.member not in signed.members.admitted()


def test_a_list_that_was_asked_for_its_members_can_be_copied_deeply(signed) -> None:
    signed.members.admitted()
    assert copy.deepcopy(signed).members.admitted() == signed.members.admitted()
