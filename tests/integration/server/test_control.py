"""Control sessions over real mutual TLS: who opens one, what ends it, and what a lost one costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lepton_core.errors import ConflictError, FaultError, IdentityError, InputError
from lepton_core.ids import Digest, JobId, MemberId
from lepton_core.privacy.anchor import LedgerAnchor, sign_anchor
from lepton_core.privacy.entries import LedgerHead
from lepton_core.session import (
    PROTOCOL_VERSION,
    Heartbeat,
    Hello,
    MatchAnswer,
    MatchRequest,
    Refusal,
    RoundInvite,
    Welcome,
)
from lepton_protos import convert
from lepton_protos.v1 import control_pb2, control_pb2_grpc, identity_pb2_grpc, job_pb2, job_pb2_grpc
from lepton_protos.v1 import identity_pb2 as idpb
from tests.integration.server.running import (
    DEADLINE_S,
    IdentityKey,
    Party,
    Session,
    SystemRandomness,
    calling,
    enrol,
    operator,
    publish_members,
    publish_ontology,
    refused,
    running,
    session_of,
    small_job,
    submit,
)


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Path]:
    """The folder of a coordinator that runs, and that counts a member as lost at once."""
    async with running(tmp_path / "home", member_grace_s="0.05", heartbeat_s="0.2"):
        yield tmp_path / "home"


def member_of(party: Party) -> MemberId:
    assert party.identity is not None
    return party.identity.member


async def until_connected(home: Path, name: str, connected: bool) -> None:
    """Wait until the operator sees the owner so."""
    async with calling(operator(home)) as channel, asyncio.timeout(DEADLINE_S):
        stub = identity_pb2_grpc.OwnersStub(channel)
        while True:
            listed = await stub.List(idpb.ListOwnersRequest())
            if {owner.name: owner.connected for owner in listed.owners}[name] is connected:
                return


async def test_a_session_is_welcomed_and_its_end_is_noticed(home: Path) -> None:
    aurora = await enrol(home, "aurora")
    async with calling(aurora) as channel:
        session = Session(channel)
        await session.hello(member_of(aurora))
        welcome = await session.receive(Welcome)
        assert (welcome.protocol_version, welcome.heartbeat_s) == (PROTOCOL_VERSION, 0.2)
        await until_connected(home, "aurora", True)
        await session.end()
        await until_connected(home, "aurora", False)


async def test_a_ledgers_place_is_kept_given_back_at_the_next_welcome_and_an_alarm_if_it_goes_backwards(
    home: Path,
) -> None:
    aurora = await enrol(home, "aurora")
    assert aurora.identity is not None
    key = aurora.identity

    def anchor(sequence: int) -> LedgerAnchor:
        return sign_anchor(LedgerHead(sequence, Digest(f"{sequence}" * 64)), key.public, key.sign)

    async def alarm() -> str:
        async with calling(operator(home)) as channel:
            listed = await identity_pb2_grpc.OwnersStub(channel).List(idpb.ListOwnersRequest())
            return {owner.name: owner.alarm for owner in listed.owners}["aurora"]

    async with calling(aurora) as channel:
        first = Session(channel)
        await first.hello(key.member, anchor=anchor(3))
        assert (await first.receive(Welcome)).anchors == ()
        await first.send(Heartbeat(), anchor=anchor(5))
        await first.end()
        assert await alarm() == ""
        second = Session(channel)
        await second.hello(key.member, anchor=anchor(4))
        (kept,) = (await second.receive(Welcome)).anchors
        assert kept == anchor(5)
        await second.end()
        assert "4 entries, 5 were signed" in await alarm()
        # Another member's, or one that nobody signed, ends the session.
        third = Session(channel)
        await third.hello(key.member, anchor=LedgerAnchor(key.public, 9, Digest("9" * 64), bytes(64)))
        with refused(IdentityError, reason="BAD_SIGNATURE"):
            await third.end()


async def test_a_broken_stream_counts_as_lost_after_the_grace(home: Path) -> None:
    aurora = await enrol(home, "aurora")
    async with session_of(aurora) as session:
        await until_connected(home, "aurora", True)
        session.cut()
        await until_connected(home, "aurora", False)


async def test_another_protocol_version_is_answered_at_once(home: Path) -> None:
    aurora = await enrol(home, "aurora")
    async with calling(aurora) as channel:
        session = Session(channel)
        await session.hello(member_of(aurora), version=PROTOCOL_VERSION + 1)
        with refused(ConflictError, reason="PROTOCOL_VERSION", match="same release"):
            await session.receive(Welcome)


async def test_the_certificate_of_another_owner_is_refused(home: Path) -> None:
    aurora, birken = await enrol(home, "aurora"), await enrol(home, "birken")
    async with calling(aurora) as channel:
        session = Session(channel)
        await session.hello(member_of(birken))
        with refused(IdentityError, reason="WRONG_MEMBER", match="another owner"):
            await session.receive(Welcome)


async def test_a_session_that_begins_with_something_else_is_refused(home: Path) -> None:
    aurora = await enrol(home, "aurora")
    async with calling(aurora) as channel:
        session = Session(channel)
        await session.send(Heartbeat())
        with refused(InputError, reason="NO_HELLO"):
            await session.receive(Welcome)


async def test_a_second_hello_ends_the_session(home: Path) -> None:
    aurora = await enrol(home, "aurora")
    async with session_of(aurora) as session:
        await session.hello(member_of(aurora))
        with refused(InputError, match="opened once"):
            await session.receive(Welcome)


async def test_a_report_that_cannot_be_ends_the_session_and_not_the_coordinator(home: Path) -> None:
    aurora = await enrol(home, "aurora")
    async with calling(aurora) as channel:
        call = control_pb2_grpc.ControlStub(channel).Session()
        await call.write(convert.reports_to_proto((Hello(PROTOCOL_VERSION, "test", member_of(aurora)),)))
        await call.read()
        bad = control_pb2.MemberReport(match_answer=control_pb2.MatchAnswer(job="../../x"))
        await call.write(control_pb2.ReportBatch(reports=[bad]))
        with refused(InputError, match="job id"):
            await call.read()
    async with session_of(aurora):
        pass


async def test_bytes_that_are_no_message_are_refused(home: Path) -> None:
    aurora = await enrol(home, "aurora")
    async with calling(aurora) as channel:
        method = channel.unary_unary("/lepton.v1.Control/Poll")
        with refused(InputError, match="PollRequest"):
            await method(b"\xff\xff\xff", timeout=DEADLINE_S)


async def test_a_newer_session_takes_the_place_of_an_older_one(home: Path) -> None:
    aurora = await enrol(home, "aurora")
    async with session_of(aurora) as older, session_of(aurora) as newer:
        with refused(ConflictError, reason="NEWER_SESSION"):
            await older.receive(Welcome)
        await until_connected(home, "aurora", True)
        await newer.end()
        await until_connected(home, "aurora", False)


async def test_sessions_end_with_a_reason_when_the_coordinator_stops(tmp_path: Path) -> None:
    async with running(tmp_path) as _:
        aurora = await enrol(tmp_path, "aurora")
        channel = calling(aurora)
        session = Session(await channel.__aenter__())
        await session.hello(member_of(aurora))
        await session.receive(Welcome)
    with refused(FaultError, reason="STOPPING"):
        await session.receive(Welcome)
    await channel.__aexit__(None, None, None)


async def submitted(home: Path, names: tuple[str, ...]) -> tuple[list[Party], Party, str]:
    """Enrolled owners of one federation, and a researcher's job that asks them."""
    owners = [await enrol(home, name) for name in names]
    ada = await enrol(home, "ada", "researcher")
    ontology = await publish_ontology(ada)
    await publish_members(ada, owners, IdentityKey.generate(SystemRandomness()))
    return owners, ada, await submit(ada, small_job(ontology))


async def test_a_job_asks_its_owners_and_opens_a_round_of_those_that_take_part(home: Path) -> None:
    owners, ada, job = await submitted(home, ("aurora", "birken", "changhe", "delta"))

    async def answer(party: Party, refusal: Refusal | None) -> None:
        async with session_of(party) as session:
            request = await session.receive(MatchRequest)
            assert request.job == job
            await session.send(MatchAnswer(request.job, refusal))
            if refusal is None:
                invite = await session.receive(RoundInvite)
                assert invite.setup.job == job
                await session.send(Heartbeat())  # what stands unanswered comes again
                assert (await session.receive(RoundInvite)).setup == invite.setup
                done.put_nowait(party.name)
            await everybody.wait()

    done: asyncio.Queue[str] = asyncio.Queue()
    everybody = asyncio.Event()
    refusal = Refusal("refused.match", "MISSING_CONCEPT", "https://example.org/t#age")
    tasks = [asyncio.create_task(answer(o, refusal if o.name == "delta" else None)) for o in owners]
    async with calling(ada) as channel, asyncio.timeout(DEADLINE_S):
        stub = job_pb2_grpc.JobsStub(channel)
        kinds = []
        async for event in stub.Watch(job_pb2.WatchRequest(job=job)):
            kinds.append(event.kind)
            if event.kind == "step":
                break
        assert kinds.count("matched") == 3
        assert kinds.count("refused") == 1
        assert {await done.get() for _ in range(3)} == {"aurora", "birken", "changhe"}
        shown = await stub.Show(job_pb2.ShowJobRequest(job=job))
        assert {o.owner: (o.state, o.reason) for o in shown.owners}["delta"] == ("cannot", "MISSING_CONCEPT")
        assert (await stub.ShowRound(job_pb2.ShowRoundRequest(job=job))).cohort == ["aurora", "birken", "changhe"]
        assert (await stub.Abort(job_pb2.AbortRequest(job=job, reason="enough"))).state == "aborted"
        rest = [event async for event in stub.Watch(job_pb2.WatchRequest(job=job, after=len(kinds)))]
        assert rest[-1].kind == "aborted"
        assert [event.sequence for event in rest] == list(range(len(kinds) + 1, len(kinds) + 1 + len(rest)))
    everybody.set()
    await asyncio.gather(*tasks)


async def test_polling_means_the_same_as_a_session(home: Path) -> None:
    owners, _, job = await submitted(home, ("aurora", "birken", "changhe"))

    async def poll(party: Party, *reports: object) -> list[object]:
        async with calling(party) as channel:
            reply = await control_pb2_grpc.ControlStub(channel).Poll(
                control_pb2.PollRequest(reports=[convert.report_to_proto(report) for report in reports]),
                timeout=DEADLINE_S,
            )
        return [convert.command_from_proto(command)[1] for command in reply.commands]

    for owner in owners:
        welcome, request = await poll(owner, Hello(PROTOCOL_VERSION, "test", member_of(owner)))
        assert isinstance(welcome, Welcome)
        assert isinstance(request, MatchRequest)
    for owner in owners:
        await poll(owner, MatchAnswer(JobId(job), None))
    (invite,) = await poll(owners[0])
    assert isinstance(invite, RoundInvite)
    with refused(InputError, match="too many"):
        await poll(owners[0], *[Heartbeat()] * 65)


async def test_an_answer_to_a_job_that_does_not_run_leaves_the_session_open(home: Path) -> None:
    aurora = await enrol(home, "aurora")
    async with session_of(aurora) as session:
        await session.send(MatchAnswer(JobId("nothing-of-that-name"), None))
        await session.send(Heartbeat())
        await session.end()


async def test_a_job_goes_on_after_a_restart(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with running(home):
        owners, ada, job = await submitted(home, ("aurora", "birken", "changhe"))
        async with session_of(owners[0]) as session:
            request = await session.receive(MatchRequest)
            await session.send(MatchAnswer(request.job, None))
            await session.send(Heartbeat())
            await session.end()
    async with running(home) as address:
        moved = [_moved(party, address) for party in (*owners, ada)]
        async with session_of(moved[1]) as session:
            assert (await session.receive(MatchRequest)).job == job
        async with calling(moved[3]) as channel:
            shown = await job_pb2_grpc.JobsStub(channel).Show(job_pb2.ShowJobRequest(job=job), timeout=DEADLINE_S)
        assert {owner.owner: owner.state for owner in shown.owners}["aurora"] == "can"


def _moved(party: Party, address: str) -> Party:
    endpoint = party.endpoint
    return Party(
        party.name,
        type(endpoint)(address, endpoint.ca_certificate, endpoint.certificate, endpoint.key),
        party.identity,
    )
