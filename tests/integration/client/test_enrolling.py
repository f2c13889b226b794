"""Do an owner and a researcher get credentials from a real coordinator, and only with the right papers?"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path

import pytest

from lepton_client.daemon import run
from lepton_client.enrol import ca_fingerprint, enrol, enrol_owner, load_invitation
from lepton_client.home import Home, load_identity, load_settings
from lepton_core.errors import ConflictError, IdentityError, InputError
from lepton_core.views import Invitation
from lepton_protos import convert
from lepton_protos.channel import load_endpoint
from tests.integration.server.running import invite, make_home, running
from tests.unit.client.clinics import write_clinic, write_policy


@pytest.fixture
async def coordinator(tmp_path):
    home = tmp_path / "coordinator"
    async with running(home):
        yield home


async def invitation_for(coordinator: Path, name: str, role: str = "owner") -> Invitation:
    return convert.from_proto(await invite(coordinator, name, role), Invitation)


def owner(invitation: Invitation, folder: Path):
    return asyncio.to_thread(enrol_owner, invitation, folder)


async def test_an_owner_enrols_and_its_keys_stay(coordinator, tmp_path) -> None:
    path = tmp_path / "aurora.invitation"
    path.write_text(json.dumps(dataclasses.asdict(await invitation_for(coordinator, "aurora"))))
    enrolled = await owner(load_invitation(path), tmp_path / "aurora")
    home = Home(tmp_path / "aurora")
    assert (enrolled.name, enrolled.role) == ("aurora", "owner")
    assert enrolled.member == load_identity(home).member.hex()
    assert load_settings(home).owner == "aurora"
    assert json.loads(home.card.read_text())["fingerprint"] == enrolled.fingerprint
    load_endpoint(home.tls)
    for private in (home.identity, home.tls / "key.pem"):
        assert private.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConflictError):
        await owner(await invitation_for(coordinator, "boreal"), tmp_path / "aurora")


async def test_a_researcher_enrols_without_a_protocol_identity(coordinator, tmp_path) -> None:
    invitation = await invitation_for(coordinator, "rosa", "researcher")
    enrolled = await asyncio.to_thread(enrol, invitation, tmp_path / "rosa", None)
    assert (enrolled.role, enrolled.member) == ("researcher", "")
    load_endpoint(tmp_path / "rosa")
    with pytest.raises(IdentityError) as wrong:
        await owner(await invitation_for(coordinator, "rolf", "researcher"), tmp_path / "rolf")
    assert wrong.value.reason == "WRONG_ROLE"
    assert "`lepton researcher enrol`" in wrong.value.hint


async def test_a_wrong_token_is_refused_and_the_right_one_still_works_with_the_same_identity(
    coordinator, tmp_path
) -> None:
    invitation = await invitation_for(coordinator, "aurora")
    with pytest.raises(IdentityError):
        await owner(dataclasses.replace(invitation, token="x" * 43), tmp_path / "aurora")
    before = load_identity(Home(tmp_path / "aurora")).public
    await owner(invitation, tmp_path / "aurora")
    assert load_identity(Home(tmp_path / "aurora")).public == before


async def test_a_token_is_good_once(coordinator, tmp_path) -> None:
    invitation = await invitation_for(coordinator, "aurora")
    await owner(invitation, tmp_path / "aurora")
    with pytest.raises(IdentityError):
        await owner(invitation, tmp_path / "thief")


async def test_another_ca_is_refused_by_fingerprint_and_by_handshake(coordinator, tmp_path) -> None:
    make_home(tmp_path / "impostor")
    async with running(tmp_path / "impostor"):
        theirs = await invitation_for(tmp_path / "impostor", "aurora")
        ours = await invitation_for(coordinator, "aurora")
        assert ca_fingerprint(ours.ca_certificate.encode()) == ours.ca_fingerprint
        swapped = dataclasses.replace(ours, ca_certificate=theirs.ca_certificate)
        with pytest.raises(IdentityError) as pinned:
            await owner(swapped, tmp_path / "a")
        assert pinned.value.reason == "WRONG_CA"
        redirected = dataclasses.replace(ours, address=theirs.address)
        with pytest.raises(IdentityError, match="TLS handshake"):
            await owner(redirected, tmp_path / "b")


async def test_an_expired_invitation_and_a_file_that_is_none_are_told(coordinator, tmp_path) -> None:
    invitation = await invitation_for(coordinator, "aurora")
    with pytest.raises(IdentityError) as late:
        await owner(dataclasses.replace(invitation, expires=1.0), tmp_path / "aurora")
    assert late.value.reason == "EXPIRED"
    with pytest.raises(InputError, match="cannot be read"):
        load_invitation(tmp_path / "nowhere")
    (tmp_path / "junk").write_text("{}")
    with pytest.raises(InputError, match="not an invitation"):
        load_invitation(tmp_path / "junk")


async def test_a_daemon_with_another_owners_certificate_ends_with_a_clear_error(coordinator, tmp_path) -> None:
    for name in ("aurora", "boreal"):
        await owner(await invitation_for(coordinator, name), tmp_path / name)
    home = Home(tmp_path / "aurora")
    write_clinic(home.folder)
    write_policy(home.folder, "f" * 64)
    for file in (tmp_path / "boreal" / "tls").iterdir():
        (home.tls / file.name).write_bytes(file.read_bytes())
    with pytest.raises(IdentityError):
        await asyncio.wait_for(run(home.folder), 30)
