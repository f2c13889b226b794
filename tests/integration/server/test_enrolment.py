"""Enrolment over real mutual TLS: who gets in, who does not, and how one is put out again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from cryptography import x509

from lepton_core.errors import ConflictError, IdentityError, InputError, NotFoundError
from lepton_core.identity import IdentityKey
from lepton_core.ports import SystemRandomness
from lepton_core.session import PROTOCOL_VERSION
from lepton_protos.channel import Endpoint
from lepton_protos.status import error_from_rpc
from lepton_protos.v1 import control_pb2, control_pb2_grpc, identity_pb2_grpc
from lepton_protos.v1 import identity_pb2 as idpb
from lepton_server.audit import verify_audit
from lepton_server.identity.ca import fingerprint_of, make_ca
from lepton_server.settings import load_settings
from lepton_server.store.sql import SqlStore
from tests.integration.server.running import (
    DEADLINE_S,
    Party,
    bootstrap,
    calling,
    enrol,
    invite,
    new_key,
    operator,
    refused,
    request_for,
    running,
)


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Path]:
    """The folder of a coordinator that runs."""
    async with running(tmp_path / "home"):
        yield tmp_path / "home"


async def health(party: Party) -> idpb.HealthView:
    async with calling(party) as channel:
        return await identity_pb2_grpc.HealthStub(channel).Report(idpb.HealthRequest(), timeout=DEADLINE_S)


async def owners(home: Path) -> dict[str, idpb.OwnerView]:
    async with calling(operator(home)) as channel:
        listed = await identity_pb2_grpc.OwnersStub(channel).List(idpb.ListOwnersRequest(), timeout=DEADLINE_S)
    return {owner.name: owner for owner in listed.owners}


async def try_to_enrol(invitation: idpb.Invitation, request: idpb.EnrolRequest) -> idpb.EnrolReply:
    async with calling(bootstrap(invitation)) as channel:
        return await identity_pb2_grpc.EnrolmentStub(channel).Enrol(request, timeout=DEADLINE_S)


def identity_key() -> IdentityKey:
    return IdentityKey.generate(SystemRandomness())


async def test_an_invited_owner_enrols_and_is_known_by_name_and_identity(home: Path) -> None:
    aurora = await enrol(home, "aurora")

    assert aurora.identity is not None
    listed = (await owners(home))["aurora"]
    assert (listed.role, listed.member, listed.identity) == (
        "owner",
        aurora.identity.member.hex(),
        aurora.identity.public.hex(),
    )
    assert not listed.connected
    assert (await health(aurora)).ready
    certificate = x509.load_pem_x509_certificate(aurora.endpoint.certificate)
    days = (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days
    assert days == 90


async def test_an_invitation_pins_the_authority_and_keeps_its_secrets_out_of_the_store(home: Path) -> None:
    invitation = await invite(home, "aurora")

    assert invitation.ca_fingerprint == fingerprint_of(invitation.ca_certificate.encode())
    files = [path.read_bytes() for path in home.rglob("lepton.db*")]
    assert files
    for secret in (invitation.token, invitation.bootstrap_key.splitlines()[1]):
        assert all(secret.encode() not in content for content in files)


async def test_a_person_enrols_without_a_protocol_identity(home: Path) -> None:
    ada = await enrol(home, "ada", "researcher")
    assert (await health(ada)).ready
    assert (await owners(home))["ada"].member == ""


async def test_a_wrong_token_is_refused_and_the_right_one_still_works(home: Path) -> None:
    invitation, (_, csr), identity = await invite(home, "aurora"), new_key(), identity_key()
    with refused(IdentityError, reason="TOKEN", match="new invitation"):
        await try_to_enrol(invitation, request_for("A" * 43, csr, identity))
    assert (await try_to_enrol(invitation, request_for(invitation.token, csr, identity))).name == "aurora"


async def test_a_token_works_once(home: Path) -> None:
    invitation, (_, csr), identity = await invite(home, "aurora"), new_key(), identity_key()
    await try_to_enrol(invitation, request_for(invitation.token, csr, identity))
    with refused(IdentityError, reason="TOKEN_USED"):
        await try_to_enrol(invitation, request_for(invitation.token, csr, identity))


async def test_of_two_enrolments_with_one_token_at_once_one_wins(home: Path) -> None:
    invitation = await invite(home, "aurora")
    requests = [request_for(invitation.token, new_key()[1], identity_key()) for _ in range(4)]
    outcomes = await asyncio.gather(
        *(try_to_enrol(invitation, request) for request in requests), return_exceptions=True
    )
    errors = [error_from_rpc(outcome) for outcome in outcomes if isinstance(outcome, grpc.RpcError)]
    assert [error.reason for error in errors] == ["TOKEN_USED"] * 3


async def test_the_token_of_another_invitation_is_refused(home: Path) -> None:
    aurora, birken = await invite(home, "aurora"), await invite(home, "birken")
    with refused(IdentityError, reason="TOKEN"):
        await try_to_enrol(birken, request_for(aurora.token, new_key()[1], identity_key()))


async def test_two_invitations_for_one_name_do_not_open_each_other(home: Path) -> None:
    first, second = await invite(home, "aurora"), await invite(home, "aurora")
    with refused(IdentityError, reason="TOKEN"):
        await try_to_enrol(first, request_for(second.token, new_key()[1], identity_key()))


async def test_a_request_that_proves_nothing_is_refused_and_leaves_the_token_unused(home: Path) -> None:
    invitation, (_, csr), identity = await invite(home, "aurora"), new_key(), identity_key()
    for change, reason in (
        (lambda request: request.MergeFrom(idpb.EnrolRequest(csr=b"no csr")), "BAD_CSR"),
        (lambda request: request.MergeFrom(idpb.EnrolRequest(identity_proof=bytes(64))), "BAD_SIGNATURE"),
        (lambda request: request.ClearField("identity_public"), "NO_IDENTITY"),
        (lambda request: request.MergeFrom(idpb.EnrolRequest(csr=new_key()[1])), "BAD_SIGNATURE"),
    ):
        request = request_for(invitation.token, csr, identity)
        change(request)
        with refused(IdentityError, reason=reason):
            await try_to_enrol(invitation, request)
    assert (await try_to_enrol(invitation, request_for(invitation.token, csr, identity))).name == "aurora"


async def test_a_csr_whose_signature_is_forged_is_refused(home: Path) -> None:
    invitation, (_, csr), identity = await invite(home, "aurora"), new_key(), identity_key()
    forged = csr[:-4] + bytes(byte ^ 1 for byte in csr[-4:])
    with refused(IdentityError, reason="BAD_CSR"):
        await try_to_enrol(invitation, request_for(invitation.token, forged, identity))


async def test_an_identity_that_another_owner_holds_is_refused(home: Path) -> None:
    aurora = await enrol(home, "aurora")
    invitation, (_, csr) = await invite(home, "birken"), new_key()
    with refused(ConflictError, reason="IDENTITY_TAKEN"):
        await try_to_enrol(invitation, request_for(invitation.token, csr, aurora.identity))


async def test_a_bootstrap_certificate_opens_nothing_but_enrolment(home: Path) -> None:
    invitation = await invite(home, "aurora")
    with refused(IdentityError, reason="ROLE"):
        await health(Party("aurora", bootstrap(invitation)))


async def test_a_certificate_of_another_authority_does_not_get_through_the_handshake(home: Path) -> None:
    aurora = await enrol(home, "aurora")
    other = make_ca(now=aurora_time(aurora))
    from lepton_server.identity.ca import KeyPair, Subject

    keys = KeyPair.generate()
    forged = other.issue(keys.public, Subject("operator", "operator"), now=aurora_time(aurora), valid_s=3_600.0)
    endpoint = Endpoint(aurora.endpoint.address, aurora.endpoint.ca_certificate, forged.certificate, keys.to_pem())
    with pytest.raises(grpc.RpcError) as failure:
        await health(Party("operator", endpoint))
    assert failure.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_a_client_that_pins_another_authority_refuses_the_coordinator(home: Path) -> None:
    aurora = await enrol(home, "aurora")
    endpoint = Endpoint(
        aurora.endpoint.address,
        make_ca(now=aurora_time(aurora)).certificate,
        aurora.endpoint.certificate,
        aurora.endpoint.key,
    )
    with pytest.raises(grpc.RpcError) as failure:
        await health(Party("aurora", endpoint))
    assert isinstance(error_from_rpc(failure.value), IdentityError)


def aurora_time(party: Party) -> float:
    return x509.load_pem_x509_certificate(party.endpoint.certificate).not_valid_before_utc.timestamp()


async def test_an_owner_may_not_do_what_operators_do(home: Path) -> None:
    aurora = await enrol(home, "aurora")
    async with calling(aurora) as channel:
        with refused(IdentityError, reason="ROLE", match="operator"):
            await identity_pb2_grpc.OwnersStub(channel).Invite(idpb.InviteRequest(name="eve"), timeout=DEADLINE_S)


async def test_an_invitation_that_cannot_be_is_refused(home: Path) -> None:
    for name, role, valid_s, kind in (
        ("Aurora", "owner", 0.0, InputError),
        ("../x", "owner", 0.0, InputError),
        ("eve", "service", 0.0, InputError),
        ("eve", "enrol", 0.0, InputError),
        ("eve", "owner", 1.0, InputError),
        ("eve", "owner", 1e12, InputError),
        ("eve", "owner", float("nan"), InputError),
        ("operator", "owner", 0.0, ConflictError),
    ):
        with refused(kind):
            await invite(home, name, role, valid_s)


async def test_a_certificate_is_renewed_and_the_one_before_stays_good(home: Path) -> None:
    aurora = await enrol(home, "aurora")
    key, csr = new_key()
    async with calling(aurora) as channel:
        reply = await identity_pb2_grpc.EnrolmentStub(channel).Renew(idpb.RenewRequest(csr=csr), timeout=DEADLINE_S)
    renewed = Endpoint(aurora.endpoint.address, aurora.endpoint.ca_certificate, reply.certificate.encode(), key)
    assert (reply.name, reply.role) == ("aurora", "owner")
    assert (await health(Party("aurora", renewed))).ready
    assert (await health(aurora)).ready  # the reply may have been lost


async def test_a_new_enrolment_ends_the_certificate_before(home: Path) -> None:
    lost = await enrol(home, "aurora")
    found = await enrol(home, "aurora")
    assert (await health(found)).ready
    with refused(IdentityError, reason="REPLACED"):
        await health(lost)


async def test_a_revoked_owner_is_refused_and_its_open_session_ends_at_once(home: Path) -> None:
    aurora = await enrol(home, "aurora")
    assert aurora.identity is not None
    async with calling(aurora) as channel:
        session = control_pb2_grpc.ControlStub(channel).Session()
        hello = control_pb2.Hello(protocol_version=PROTOCOL_VERSION, member=aurora.identity.member)
        await session.write(control_pb2.ReportBatch(reports=[control_pb2.MemberReport(hello=hello)]))
        assert (await session.read()).commands[0].HasField("welcome")
        async with calling(operator(home)) as by_operator:
            stub = identity_pb2_grpc.OwnersStub(by_operator)
            assert (await stub.Revoke(idpb.RevokeRequest(name="aurora"), timeout=DEADLINE_S)).name == "aurora"
        with refused(IdentityError, reason="REVOKED"):
            async with asyncio.timeout(5.0):
                await session.read()
    with refused(IdentityError, reason="REVOKED"):
        await health(aurora)
    assert "aurora" not in await owners(home)


async def test_a_revocation_survives_a_restart(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with running(home):
        aurora = await enrol(home, "aurora")
        async with calling(operator(home)) as channel:
            await identity_pb2_grpc.OwnersStub(channel).Revoke(idpb.RevokeRequest(name="aurora"), timeout=DEADLINE_S)
    async with running(home) as address:
        endpoint = Endpoint(address, aurora.endpoint.ca_certificate, aurora.endpoint.certificate, aurora.endpoint.key)
        with refused(IdentityError, reason="REVOKED"):
            await health(Party("aurora", endpoint))


async def test_nobody_can_be_revoked_who_is_not_there_and_no_operator_itself(home: Path) -> None:
    async with calling(operator(home)) as channel:
        stub = identity_pb2_grpc.OwnersStub(channel)
        with refused(NotFoundError):
            await stub.Revoke(idpb.RevokeRequest(name="nobody"), timeout=DEADLINE_S)
        with refused(ConflictError):
            await stub.Revoke(idpb.RevokeRequest(name="operator"), timeout=DEADLINE_S)


async def test_every_decision_about_people_is_in_the_audit_trail(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with running(home):
        await enrol(home, "aurora")
        async with calling(operator(home)) as channel:
            await identity_pb2_grpc.OwnersStub(channel).Revoke(idpb.RevokeRequest(name="aurora"), timeout=DEADLINE_S)
    store = SqlStore(load_settings(home).database_url(home))
    with store.transaction() as transaction:
        rows = transaction.audit()
    store.close()
    assert [(row.actor, row.action, row.subject) for row in rows] == [
        ("operator", "enrol", "operator"),
        ("operator", "invite", "aurora"),
        ("aurora", "enrol", "aurora"),
        ("operator", "revoke", "aurora"),
    ]
    assert verify_audit(rows) == rows[-1].digest
