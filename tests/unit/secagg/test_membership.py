"""The signed membership list: in force, unaltered, of the right federation, and no older than a known one."""

import json
from dataclasses import replace

import pytest

from lepton_core.errors import IdentityError, InputError, SettingsError
from lepton_core.membership import ListedMember, MembershipList, SignedList, sign, verify
from tests.protocol.seeded import make_identities

KEYS = make_identities(4)
FEDERATION = KEYS[3]


def make_list(**changes):
    fields = {
        "federation": "hospitals",
        "version": 3,
        "issued": 1000,
        "expires": 2000,
        "members": tuple(
            ListedMember(owner=f"owner-{index}", identity=key.public.hex()) for index, key in enumerate(KEYS[:3])
        ),
    }
    return MembershipList(**(fields | changes))


def test_a_signed_list_survives_json_and_verifies():
    signed = SignedList.from_json(sign(make_list(), FEDERATION).to_json())
    listed = verify(signed, FEDERATION.public, now=1500.0, at_least_version=3)
    assert listed == make_list()
    assert listed.admitted() == {key.member: key.public for key in KEYS[:3]}
    assert listed.owner_of(KEYS[1].member) == "owner-1"
    assert len(listed.digest()) == 32


def test_a_revoked_identity_is_not_admitted():
    listed = make_list(revoked=(KEYS[1].public.hex(),))
    assert KEYS[1].member not in listed.admitted()
    assert listed.owner_of(KEYS[1].member) is None
    assert listed.digest() != make_list().digest()


@pytest.mark.parametrize(
    ("now", "at_least", "reason"),
    [(2000.0, 3, "EXPIRED"), (999.0, 3, "NOT_YET_ISSUED"), (1500.0, 4, "REPLAYED")],
)
def test_a_list_out_of_its_time_is_refused(now, at_least, reason):
    with pytest.raises(IdentityError) as refused:
        verify(sign(make_list(), FEDERATION), FEDERATION.public, now=now, at_least_version=at_least)
    assert refused.value.reason == reason


def test_a_list_that_the_trusted_federation_did_not_sign_is_refused():
    coordinator = KEYS[0]
    for forged in (
        sign(make_list(), coordinator),
        replace(sign(make_list(), coordinator), federation_public=FEDERATION.public),
        replace(sign(make_list(), FEDERATION), members=make_list(version=4)),
    ):
        with pytest.raises(IdentityError) as refused:
            verify(forged, FEDERATION.public, now=1500.0, at_least_version=1)
        assert refused.value.reason == "BAD_SIGNATURE"


@pytest.mark.parametrize(
    "changes",
    [
        {"members": ()},
        {"members": make_list().members[::-1]},
        {"members": (make_list().members[0], make_list().members[0])},
        {"members": (make_list().members[0], ListedMember(owner="owner-9", identity=KEYS[0].public.hex()))},
        {"federation": "Not A Name"},
        {"version": 0},
        {"revoked": ("zz",)},
        {"revoked": ("b" * 64, "a" * 64)},
    ],
)
def test_a_list_that_no_federation_may_sign_is_refused(changes):
    document = make_list().model_dump(mode="json") | {
        key: [item.model_dump() if hasattr(item, "model_dump") else item for item in value]
        if isinstance(value, tuple)
        else value
        for key, value in changes.items()
    }
    signed = sign(make_list(), FEDERATION).to_json()

    outer = json.loads(signed) | {"list": document}
    with pytest.raises(SettingsError):
        SignedList.from_json(json.dumps(outer).encode())


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"list": 1, "federation_public": "zz", "signature": ""}'])
def test_what_is_no_list_is_refused(data):
    with pytest.raises(InputError):
        SignedList.from_json(data)
