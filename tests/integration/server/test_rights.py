"""Every RPC by every role: what the table does not allow is refused, and what is somebody else's is not there."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lepton_core.errors import ConflictError, IdentityError, InputError, JobError, NotFoundError, SettingsError
from lepton_core.membership import SignedList
from lepton_protos.status import error_from_rpc
from lepton_protos.v1 import control_pb2, identity_pb2, identity_pb2_grpc, job_pb2, job_pb2_grpc, kg_pb2, transfer_pb2
from lepton_server.identity.roles import ALLOWED, Role
from tests.integration.server.running import (
    DEADLINE_S,
    IdentityKey,
    Party,
    SystemRandomness,
    bootstrap,
    calling,
    enrol,
    invite,
    operator,
    publish_members,
    publish_ontology,
    refused,
    running,
    small_job,
    submit,
)

FILES = (control_pb2, identity_pb2, job_pb2, kg_pb2, transfer_pb2, health_pb2)
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
GARBAGE = (b"", b"\x00", b"\xff" * 64, b"\x0a\xff\xff\xff\xff\x0f", bytes(range(256)))


_LOST_BY_THE_CLIENT = "error/LOST"


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Path]:
    """The folder of a coordinator that runs."""
    async with running(tmp_path / "home"):
        yield tmp_path / "home"


async def outcome(channel: grpc.aio.Channel, method: str, request: bytes) -> str:
    """The code of the typed error that a raw call gives; "ok" for an answer.

    A stream that the server refuses before the client has written says now and then only that the write failed, in
    the client's own library; then the answer is asked for again.
    """
    for _ in range(20):
        told = await _outcome(channel, method, request)
        if told != _LOST_BY_THE_CLIENT:
            return told
    return told


async def _outcome(channel: grpc.aio.Channel, method: str, request: bytes) -> str:
    descriptor = METHODS[method]
    call: Any
    try:
        match descriptor.client_streaming, descriptor.server_streaming:
            case True, True:
                call = channel.stream_stream(method)(iter([request]), timeout=DEADLINE_S)
                await call.read()
                call.cancel()
            case False, True:
                call = channel.unary_stream(method)(request, timeout=DEADLINE_S)
                await call.read()
                call.cancel()
            case True, False:
                await channel.stream_unary(method)(iter([request]), timeout=DEADLINE_S)
            case _:
                await channel.unary_unary(method)(request, timeout=DEADLINE_S)
    except grpc.aio.AioRpcError as failure:
        if failure.details() == "Internal error from Core":
            return _LOST_BY_THE_CLIENT
        error = error_from_rpc(failure)
        if "Traceback" in f"{failure.details()} {error}":
            return "error/STACK_TRACE"
        return f"{error.code}/{error.reason}"
    return "ok"


def test_the_table_names_every_rpc_and_no_other() -> None:
    assert set(ALLOWED) == set(METHODS)


async def test_every_role_gets_no_further_than_the_table_says(home: Path) -> None:
    people = {
        Role.OPERATOR: operator(home),
        Role.RESEARCHER: await enrol(home, "ada", "researcher"),
        Role.OWNER: await enrol(home, "aurora"),
        Role.AUDITOR: await enrol(home, "otto", "auditor"),
        Role.ENROL: Party("birken", bootstrap(await invite(home, "birken"))),
    }
    for role, party in people.items():
        async with calling(party) as channel:
            for method in METHODS:
                told = await outcome(channel, method, b"")
                refused_by_role = told == "identity/ROLE" and "Upload" not in method and "Status" not in method
                if role not in ALLOWED[method]:
                    assert told == "identity/ROLE", f"{role} on {method}: {told}"
                else:
                    assert not refused_by_role, f"{role} on {method}: {told}"


@pytest.mark.parametrize("role", ["owner", "researcher", "operator"])
async def test_bytes_that_are_no_request_give_a_typed_error_or_an_answer_and_harm_nothing(
    home: Path, role: str
) -> None:
    party = operator(home) if role == "operator" else await enrol(home, "somebody", role)
    async with calling(party) as channel:
        for method in METHODS:
            for request in GARBAGE:
                told = await outcome(channel, method, request)
                assert told == "ok" or told.split("/")[0] not in {"error", "fault"}, f"{method}: {told}"
        health = await identity_pb2_grpc.HealthStub(channel).Report(identity_pb2.HealthRequest(), timeout=DEADLINE_S)
    assert health.ready


@pytest.mark.parametrize("method", ["Jobs/Show", "Jobs/Watch", "Control/Session", "Transfer/Upload"])
async def test_a_refused_call_is_off_its_connection_at_once(home: Path, method: str) -> None:
    """A connection carries 64 calls; one that were there until Python searches for cycles would fill it."""
    party = await enrol(home, "somebody", "researcher")
    gc.disable()
    try:
        async with calling(party) as channel:
            told = {await outcome(channel, f"/lepton.v1.{method}", b"\xff" * 64) for _ in range(80)}
    finally:
        gc.enable()
    assert told in ({"input/"}, {"identity/ROLE"})


async def test_a_method_that_nobody_made_is_unimplemented(home: Path) -> None:
    async with calling(operator(home)) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await channel.unary_unary("/lepton.v1.Jobs/Steal")(b"", timeout=DEADLINE_S)
    assert failure.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_a_message_over_the_limit_is_refused(home: Path) -> None:
    async with calling(operator(home)) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await channel.unary_unary("/lepton.v1.KnowledgeService/Diff")(bytes(5 * 2**20), timeout=DEADLINE_S)
    assert failure.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_researcher_sees_its_own_jobs_and_the_operator_all(home: Path) -> None:
    owners = [await enrol(home, name) for name in ("aurora", "birken", "changhe")]
    ada, bob = await enrol(home, "ada", "researcher"), await enrol(home, "bob", "researcher")
    await publish_members(ada, owners, IdentityKey.generate(SystemRandomness()))
    job = await submit(ada, small_job(await publish_ontology(ada)))

    for party, seen in ((ada, [job]), (bob, []), (operator(home), [job])):
        async with calling(party) as channel:
            stub = job_pb2_grpc.JobsStub(channel)
            listed = await stub.List(job_pb2.ListJobsRequest(), timeout=DEADLINE_S)
            assert [view.job for view in listed.jobs] == seen
    async with calling(bob) as channel:
        stub = job_pb2_grpc.JobsStub(channel)
        for call in (
            lambda: stub.Show(job_pb2.ShowJobRequest(job=job), timeout=DEADLINE_S),
            lambda: stub.Abort(job_pb2.AbortRequest(job=job), timeout=DEADLINE_S),
            lambda: stub.ShowRound(job_pb2.ShowRoundRequest(job=job), timeout=DEADLINE_S),
            lambda: stub.Models(job_pb2.ListModelsRequest(job=job), timeout=DEADLINE_S),
            lambda: stub.Watch(job_pb2.WatchRequest(job=job), timeout=DEADLINE_S).read(),
        ):
            with refused(NotFoundError, match=job):
                await call()
    async with calling(operator(home)) as channel:
        stub = job_pb2_grpc.JobsStub(channel)
        assert (await stub.Abort(job_pb2.AbortRequest(job=job, reason="why"), timeout=DEADLINE_S)).state == "aborted"
        with refused(ConflictError, match="ended"):
            await stub.Abort(job_pb2.AbortRequest(job=job), timeout=DEADLINE_S)


async def test_a_job_that_cannot_run_is_refused_with_what_is_wrong(home: Path) -> None:
    ada = await enrol(home, "ada", "researcher")
    ontology = await publish_ontology(ada)
    good = small_job(ontology)
    task = good.task.model_dump(mode="json")
    with refused(JobError, match="membership list"):
        await submit(ada, good)
    with refused(JobError, reason="UNKNOWN_CONCEPT", match="did you mean"):
        await submit(ada, small_job(ontology, task={**task, "features": [{"concept": "sise"}]}))
    with refused(JobError, reason="UNIT_MISMATCH"):
        await submit(ada, small_job(ontology, task={**task, "features": [{"concept": "size", "unit": "kg"}]}))
    with refused(NotFoundError, match="ontology"):
        await submit(ada, small_job("0" * 64))
    async with calling(ada) as channel:
        stub = job_pb2_grpc.JobsStub(channel)
        with refused(JobError, match="JSON"):
            await stub.Submit(job_pb2.SubmitRequest(canonical_job=b"{"), timeout=DEADLINE_S)
        with refused(InputError, match="name"):
            await stub.Submit(job_pb2.SubmitRequest(canonical_job=b"{}"), timeout=DEADLINE_S)
        with refused(JobError, match="canonical"):
            await stub.Submit(job_pb2.SubmitRequest(canonical_job=good.canonical() + b" "), timeout=DEADLINE_S)
    assert issubclass(SettingsError, InputError)


async def test_membership_lists_only_go_forward_and_stay_with_their_federation(home: Path) -> None:
    aurora, ada = await enrol(home, "aurora"), await enrol(home, "ada", "researcher")
    key, other = (IdentityKey.generate(SystemRandomness()) for _ in range(2))
    async with calling(aurora) as channel:
        stub = identity_pb2_grpc.FederationsStub(channel)
        with refused(NotFoundError, match="federation publish"):
            await stub.Get(identity_pb2.GetMembershipRequest(), timeout=DEADLINE_S)
    for last in (2**62, 1_000_001):  # nobody could publish a later one
        with refused(InputError, match="impossible version"):
            await publish_members(ada, [aurora], other, version=last)
    signed = await publish_members(ada, [aurora], key, version=2)
    await publish_members(ada, [aurora], key, version=2)  # the same once more changes nothing
    with refused(IdentityError, reason="REPLAYED"):
        await publish_members(ada, [aurora], key, version=1)
    birken = await enrol(home, "birken")
    with refused(ConflictError, match="higher version"):
        await publish_members(ada, [aurora, birken], key, version=2)
    with refused(ConflictError, reason="FEDERATION_KEY"):
        await publish_members(ada, [aurora], other, version=3)
    async with calling(ada) as channel:
        stub = identity_pb2_grpc.FederationsStub(channel)
        forged = SignedList(
            signed.members.model_copy(update={"version": 4}), signed.federation_public, signed.signature
        )
        with refused(IdentityError, reason="BAD_SIGNATURE"):
            await stub.Publish(identity_pb2.PublishMembershipRequest(signed_list=forged.to_json()), timeout=DEADLINE_S)
        newest = await stub.Get(identity_pb2.GetMembershipRequest(), timeout=DEADLINE_S)
        assert newest.signed_list == signed.to_json()
    moved = await publish_members(operator(home), [aurora], other, version=3)
    async with calling(aurora) as channel:
        stub = identity_pb2_grpc.FederationsStub(channel)
        for digest, expected in (("", moved), (signed.members.digest().hex(), signed)):
            reply = await stub.Get(identity_pb2.GetMembershipRequest(digest=digest), timeout=DEADLINE_S)
            assert reply.signed_list == expected.to_json()


async def test_the_standard_health_service_tells_load_balancers(home: Path) -> None:
    async with calling(operator(home)) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        checked = await stub.Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S)
        watched = await stub.Watch(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S).read()
    assert checked.status == watched.status == health_pb2.HealthCheckResponse.SERVING
