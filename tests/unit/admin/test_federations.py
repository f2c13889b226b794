from __future__ import annotations

import json
import stat

import pytest

from lepton_admin.cli.main import run
from lepton_core.errors import ConflictError, InputError
from lepton_core.identity import IdentityKey, fingerprint
from lepton_core.membership import SignedList, verify
from lepton_core.ports import SystemClock, SystemRandomness


def write_card(path, owner, changes=()):
    key = IdentityKey.generate(SystemRandomness())
    card = {
        "owner": owner,
        "member": key.member.hex(),
        "identity": key.public.hex(),
        "fingerprint": fingerprint(key.public),
    }
    path.write_text(json.dumps(card | dict(changes)), encoding="utf-8")
    return key


@pytest.fixture
def folder(tmp_path, capsys):
    assert run(["federation", "create", str(tmp_path / "f"), "--name", "hospitals", "--output", "json"]) == 0
    key = answer(capsys)["federation_key"]
    assert IdentityKey.from_pem((tmp_path / "f" / "federation.pem").read_bytes()).public.hex() == key
    return tmp_path / "f"


def answer(capsys):
    return json.loads(capsys.readouterr().out)


def test_the_federation_key_is_readable_by_its_owner_only(folder):
    assert stat.S_IMODE((folder / "federation.pem").stat().st_mode) == 0o600


def test_a_list_is_drafted_signed_and_holds_under_the_key_that_create_showed(folder, tmp_path, capsys):
    key = IdentityKey.from_pem((folder / "federation.pem").read_bytes()).public.hex()
    for owner in ("birken", "aurora", "changhe"):
        write_card(tmp_path / f"{owner}.json", owner)
    cards = [str(tmp_path / f"{owner}.json") for owner in ("birken", "aurora", "changhe")]
    assert run(["federation", "add", str(folder), *cards, "--output", "json"]) == 0
    assert [member["owner"] for member in answer(capsys)["members"]] == ["aurora", "birken", "changhe"]
    for version in (1, 2):
        assert run(["federation", "sign", str(folder), "--days", "7", "--output", "json"]) == 0
        assert answer(capsys)["version"] == version

    signed = SignedList.from_json((folder / "signed.json").read_bytes())
    members = verify(signed, bytes.fromhex(key), now=SystemClock().now() + 1, at_least_version=2)
    assert [member.owner for member in members.members] == ["aurora", "birken", "changhe"]
    assert members.expires - members.issued == 7 * 86_400


def test_a_member_listed_twice_is_listed_once(folder, tmp_path, capsys):
    write_card(tmp_path / "a.json", "aurora")
    assert run(["federation", "add", str(folder), str(tmp_path / "a.json"), str(tmp_path / "a.json")]) == 0
    capsys.readouterr()
    assert run(["federation", "list", str(folder), "--output", "json"]) == 0
    assert len(answer(capsys)["members"]) == 1


def test_an_owner_with_a_second_identity_is_refused(folder, tmp_path, capsys):
    write_card(tmp_path / "a.json", "aurora")
    write_card(tmp_path / "b.json", "aurora")
    assert run(["federation", "add", str(folder), str(tmp_path / "a.json")]) == 0
    assert run(["federation", "add", str(folder), str(tmp_path / "b.json")]) == ConflictError.exit_code
    assert "another identity" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes", [{"member": "00" * 16}, {"owner": "Not A Name"}, {"identity": "00"}, {"token": "x"}], ids=str
)
def test_a_card_that_does_not_fit_itself_is_refused(folder, tmp_path, changes, capsys):
    write_card(tmp_path / "a.json", "aurora", changes)
    assert run(["federation", "add", str(folder), str(tmp_path / "a.json")]) == InputError.exit_code
    assert str(tmp_path / "a.json") in capsys.readouterr().err


def test_a_list_without_members_is_not_signed(folder, capsys):
    assert run(["federation", "sign", str(folder)]) == InputError.exit_code
    assert not (folder / "signed.json").exists()


def test_a_federation_is_never_made_twice_in_one_folder(folder, capsys):
    before = (folder / "federation.pem").read_bytes()
    assert run(["federation", "create", str(folder)]) == ConflictError.exit_code
    assert (folder / "federation.pem").read_bytes() == before


def test_a_missing_card_tells_what_lies_beside_where_it_should_be(folder, tmp_path, capsys):
    write_card(tmp_path / "aurora.json", "aurora")
    capsys.readouterr()
    assert run(["federation", "add", str(folder), str(tmp_path / "aurorra.json"), "--output", "json"]) == 3
    fields = json.loads(capsys.readouterr().err)
    assert fields["where"] == str(tmp_path / "aurorra.json")
    assert "aurora.json" in fields["got"]
