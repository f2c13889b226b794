"""A real coordinator on a free port of this machine, and people and daemons who call it over mutual TLS."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import shutil
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from lepton_core.errors import LeptonError
from lepton_core.identity import IdentityKey
from lepton_core.ids import MemberId
from lepton_core.job import Job
from lepton_core.membership import ListedMember, MembershipList, SignedList, sign
from lepton_core.ports import SystemRandomness
from lepton_core.privacy.anchor import LedgerAnchor
from lepton_core.session import PROTOCOL_VERSION, Hello, MemberReport, Welcome
from lepton_protos import convert
from lepton_protos.channel import Endpoint, load_endpoint, open_aio_channel
from lepton_protos.status import error_from_rpc
from lepton_protos.v1 import control_pb2_grpc, identity_pb2_grpc, job_pb2, job_pb2_grpc, kg_pb2, kg_pb2_grpc
from lepton_protos.v1 import identity_pb2 as idpb
from lepton_server.app import serve
from lepton_server.setup import init_home

DEADLINE_S = 20.0
C = TypeVar("C")


@dataclass
class Party:
    """Somebody with credentials."""

    name: str
    endpoint: Endpoint
    identity: IdentityKey | None = None


def make_home(home: Path) -> None:
    """A coordinator's folder with an authority of its own; without a port for bulk bytes, which `running` may add."""
    init_home(home, listen="127.0.0.1:0", hosts=["localhost", "127.0.0.1"], bulk="off")


@functools.cache
def _made_home() -> Path:
    """One that this process has made, to be copied: making its tables takes longer than most tests."""
    place = Path(tempfile.mkdtemp(prefix="lepton-home-"))
    atexit.register(shutil.rmtree, place)
    make_home(place / "home")
    return place / "home"


@contextlib.asynccontextmanager
async def running(home: Path, **overrides: str) -> AsyncIterator[str]:
    """The address of a coordinator that runs while the block does.

    An empty folder becomes one of the coordinators that this process's tests share keys with; `make_home` makes
    another.
    """
    if not (home / "coordinator.toml").exists():
        shutil.copytree(_made_home(), home, dirs_exist_ok=True)
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    task = asyncio.create_task(serve(home, ready=address.set_result, stop=stop, **overrides))
    try:
        await asyncio.wait({task, address}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        yield address.result()
    finally:
        stop.set()
        await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 15.0)


@contextlib.asynccontextmanager
async def calling(party: Party | Endpoint) -> AsyncIterator[grpc.aio.Channel]:
    """A channel with the party's credentials."""
    channel = open_aio_channel(party.endpoint if isinstance(party, Party) else party)
    try:
        yield channel
    finally:
        await channel.close(None)


@contextlib.contextmanager
def refused(kind: type[LeptonError], *, reason: str = "", match: str = "") -> Iterator[list[LeptonError]]:
    """Expect an RPC to fail with this typed error, and nothing of a stack trace in it."""
    caught: list[LeptonError] = []
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        yield caught
    error = error_from_rpc(failure.value)
    assert type(error) is kind, f"{failure.value.code()}: {failure.value.details()}"
    if reason:
        assert error.reason == reason, str(error)
    assert match in str(error)
    assert "Traceback" not in str(failure.value.details()) + str(error)
    caught.append(error)


def operator(home: Path) -> Party:
    """The operator whose profile `init_home` wrote."""
    return Party("operator", load_endpoint(home / "operator"))


async def invite(home: Path, name: str, role: str = "owner", valid_s: float = 0.0) -> idpb.Invitation:
    """An invitation by the operator."""
    async with calling(operator(home)) as channel:
        stub: Any = identity_pb2_grpc.OwnersStub(channel)
        made: idpb.Invitation = await stub.Invite(
            idpb.InviteRequest(name=name, role=role, valid_s=valid_s), timeout=DEADLINE_S
        )
        return made


def bootstrap(invitation: idpb.Invitation) -> Endpoint:
    """The endpoint that an invitation gives: good for `Enrol` alone."""
    return Endpoint(
        invitation.address,
        invitation.ca_certificate.encode(),
        invitation.bootstrap_certificate.encode(),
        invitation.bootstrap_key.encode(),
    )


def new_key() -> tuple[bytes, bytes]:
    """A fresh TLS key (PEM) and a request for its certificate (DER)."""
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, SHA256())
    return (
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        csr.public_bytes(Encoding.DER),
    )


def request_for(token: str, csr: bytes, identity: IdentityKey | None) -> idpb.EnrolRequest:
    """What a site sends to enrol."""
    if identity is None:
        return idpb.EnrolRequest(token=token, csr=csr)
    proof = identity.sign(b"lepton/enrol/v1" + token.encode() + csr)
    return idpb.EnrolRequest(token=token, csr=csr, identity_public=identity.public, identity_proof=proof)


async def enrol(home: Path, name: str, role: str = "owner") -> Party:
    """Invite and enrol somebody."""
    invitation = await invite(home, name, role)
    identity = IdentityKey.generate(SystemRandomness()) if role == "owner" else None
    key, csr = new_key()
    async with calling(bootstrap(invitation)) as channel:
        stub: Any = identity_pb2_grpc.EnrolmentStub(channel)
        asked = request_for(invitation.token, csr, identity)
        # A busy machine may cut a handshake short; whoever enrols connects again.
        reply = await stub.Enrol(asked, timeout=DEADLINE_S, wait_for_ready=True)
    endpoint = Endpoint(invitation.address, reply.ca_certificate.encode(), reply.certificate.encode(), key)
    return Party(name, endpoint, identity)


class Session:
    """A member's control session, driven by a test."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        stub: Any = control_pb2_grpc.ControlStub(channel)
        self._call: Any = stub.Session()
        self._came: deque[object] = deque()

    async def send(self, report: MemberReport, anchor: LedgerAnchor | None = None) -> None:
        """Send one report."""
        await self._call.write(convert.reports_to_proto((report,), anchor=anchor))

    async def hello(
        self, member: MemberId, version: int = PROTOCOL_VERSION, *, anchor: LedgerAnchor | None = None
    ) -> None:
        """Open the session."""
        await self.send(Hello(version, "test", member), anchor)

    async def receive(self, kind: type[C]) -> C:
        """The next command of this kind; others are passed over."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                while self._came:
                    command = self._came.popleft()
                    if isinstance(command, kind):
                        return command
                batch = await self._call.read()
                assert batch is not grpc.aio.EOF, f"the stream ended while waiting for {kind.__name__}"
                self._came.extend(command for _, command in convert.commands_from_proto(batch))

    async def end(self) -> None:
        """Say that nothing more comes, and wait for the stream's end."""
        await self._call.done_writing()
        async with asyncio.timeout(DEADLINE_S):
            while await self._call.read() is not grpc.aio.EOF:
                pass

    def cut(self) -> None:
        """Break the stream."""
        self._call.cancel()


@contextlib.asynccontextmanager
async def session_of(party: Party) -> AsyncIterator[Session]:
    """A session that the coordinator has welcomed."""
    assert party.identity is not None
    async with calling(party) as channel:
        session = Session(channel)
        await session.hello(party.identity.member)
        await session.receive(Welcome)
        yield session


ONTOLOGY = b"""
@prefix skos: <http://www.w3.org/2004/02/skos/core#> .
@prefix xsd: <http://www.w3.org/2001/XMLSchema#> .
@prefix kg: <https://w3id.org/lepton/kg#> .
@prefix : <https://example.org/t#> .
:size a skos:Concept ; skos:prefLabel "size"@en ; kg:datatype xsd:double ; kg:unit "mm" ;
  kg:plausibleMinimum 0.0 ; kg:plausibleMaximum 50.0 .
:age a skos:Concept ; skos:prefLabel "age"@en ; kg:datatype xsd:double ; kg:unit "a" ;
  kg:plausibleMinimum 0.0 ; kg:plausibleMaximum 120.0 .
:outcome a skos:Concept ; skos:prefLabel "outcome"@en ; kg:valueSet :outcomes .
:outcomes a skos:Collection ; skos:member :good, :bad .
:good a skos:Concept ; skos:prefLabel "good"@en ; skos:notation "good" .
:bad a skos:Concept ; skos:prefLabel "bad"@en ; skos:notation "bad" .
"""


async def publish_ontology(party: Party, document: bytes = ONTOLOGY) -> str:
    """The hash of the published ontology."""
    async with calling(party) as channel:
        stub: Any = kg_pb2_grpc.KnowledgeServiceStub(channel)
        request = kg_pb2.PublishOntologyRequest(document=document, format="turtle", label="test")
        version = await stub.Publish(iter([request]), timeout=DEADLINE_S)
        return str(version.digest)


async def publish_members(party: Party, owners: Sequence[Party], key: IdentityKey, version: int = 1) -> SignedList:
    """Sign and publish the list of these owners."""
    entries = [ListedMember(owner=o.name, identity=o.identity.public.hex()) for o in owners if o.identity]
    listed = MembershipList(
        federation="hospitals",
        version=version,
        issued=0,
        expires=2**40,
        members=tuple(sorted(entries, key=lambda entry: entry.owner)),
    )
    signed = sign(listed, key)
    async with calling(party) as channel:
        stub: Any = identity_pb2_grpc.FederationsStub(channel)
        await stub.Publish(idpb.PublishMembershipRequest(signed_list=signed.to_json()), timeout=DEADLINE_S)
    return signed


def small_job(ontology: str, **changes: Any) -> Job:
    """A job of three owners on two features, without privacy noise."""
    document = {
        "name": "small",
        "task": {
            "ontology": ontology,
            "vocabulary": "https://example.org/t#",
            "features": [{"concept": "size"}, {"concept": "age"}],
            "target": {"concept": "outcome", "positive": "bad"},
        },
        "model": {"kind": "logistic"},
        "training": {"rounds": 1},
        "privacy": {"mode": "none", "noise_multiplier": None},
        "aggregation": {"min_cohort": 3, "max_cohort": 8, "step_deadline_s": 60.0},
        **changes,
    }
    return Job.model_validate(document)


async def submit(party: Party, job: Job) -> str:
    """The id of the job, now running."""
    async with calling(party) as channel:
        stub: Any = job_pb2_grpc.JobsStub(channel)
        reply = await stub.Submit(job_pb2.SubmitRequest(canonical_job=job.canonical()), timeout=DEADLINE_S)
        return str(reply.job)
