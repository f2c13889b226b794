"""Every value that may leave a site, and what each must be: the table of `docs/what-leaves.md`, as checks.

A check compares what a daemon sent with what it was told before, and with public numbers. So no field is left in
which a value of the owner's could travel, short of hiding it in what must be random: keys, salts, ciphertexts and
masked words, whose lengths are fixed and whose bytes are tested for uniformity.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import Message

import lepton_client
import lepton_compression
import lepton_core
import lepton_kg
import lepton_pool
from lepton_core import __version__, errors
from lepton_core.job import Job, parse_job
from lepton_core.secagg.messages import Certificate, Delivery, Roster, SurvivorSet
from lepton_core.secagg.terms import Setup
from lepton_core.session import PROTOCOL_VERSION, MatchRequest, Published, RoundClosed, RoundCommand, RoundInvite
from lepton_protos import convert
from lepton_protos.v1 import control_pb2, identity_pb2, kg_pb2, transfer_pb2
from tests.e2e.recording_proxy import Call

#: RPC -> the request's message. A daemon calls no other.
REQUESTS: dict[str, type[Message]] = {
    "/lepton.v1.Enrolment/Enrol": identity_pb2.EnrolRequest,
    "/lepton.v1.Control/Session": control_pb2.ReportBatch,
    "/lepton.v1.Control/Links": control_pb2.LinksRequest,
    "/lepton.v1.KnowledgeService/Get": kg_pb2.GetOntologyRequest,
    "/lepton.v1.Transfer/Download": transfer_pb2.DownloadRequest,
    "/lepton.v1.Transfer/Status": transfer_pb2.UploadStatusRequest,
    "/lepton.v1.Transfer/Put": transfer_pb2.UploadChunk,
}
#: A salt and two shares of 32 bytes each, and the tag of ChaCha20-Poly1305.
CIPHERTEXT_BYTES = 112

Round = tuple[str, int]


@dataclass
class Told:
    """What everybody was told who speaks to one daemon: from its invitation, and by the coordinator so far."""

    owner: str
    token: str
    #: The owner's protocol identity and member id, and the ids of all members on the signed list.
    identity: bytes
    member: bytes
    members: frozenset[bytes]
    #: Populations that the owner has opened in its ledger, an entry each.
    openings: int = 0
    #: Commands passed on in the session at hand.
    commands: int = 0
    jobs: dict[str, Job] = field(default_factory=dict)
    setups: dict[Round, Setup] = field(default_factory=dict)
    rosters: dict[Round, Roster] = field(default_factory=dict)
    deliveries: dict[Round, Delivery] = field(default_factory=dict)
    survivors: dict[Round, SurvivorSet] = field(default_factory=dict)
    certificates: dict[Round, Certificate] = field(default_factory=dict)
    #: Digests of what rounds published.
    links: set[str] = field(default_factory=set)

    def take(self, answer: bytes) -> None:
        """Take in what the coordinator said at one time."""
        for _, command in convert.commands_from_proto(control_pb2.CommandBatch.FromString(answer)):
            self.commands += 1
            self._take(command)

    def _take(self, command: object) -> None:
        match command:
            case RoundClosed(published=Published(digest)):
                self.links.add(digest)
            case MatchRequest(job, canonical_job):
                self.jobs[job] = parse_job(canonical_job)
            case RoundInvite(setup):
                self.setups[setup.job, setup.round] = setup
            case RoundCommand(job, number, message):
                kept: dict[type, dict[Round, Any]] = {
                    Roster: self.rosters,
                    Delivery: self.deliveries,
                    SurvivorSet: self.survivors,
                    Certificate: self.certificates,
                }
                kept[type(message)][job, number] = message

    def concepts(self) -> set[str]:
        """Every IRI that a job named."""
        tasks = [job.task for job in self.jobs.values()]
        return {task.iri(item.concept) for task in tasks for item in (*task.features, task.target)}

    def payload_bytes(self) -> set[int]:
        """Lengths of a masked input, by the terms of the rounds."""
        return {setup.terms.payload_bytes for setup in self.setups.values()}


Check = Callable[[Any, Told], bool]


@dataclass(frozen=True)
class Kind:
    """Fields of one kind, and what a value of it must be."""

    name: str
    fields: tuple[str, ...]
    allows: Check


def _is_certificate_request(csr: bytes, told: Told) -> bool:
    request = x509.load_der_x509_csr(csr)
    key = request.public_key()
    return (
        [(part.oid.dotted_string, part.value) for part in request.subject] == [("2.5.4.3", told.owner)]
        and isinstance(key, ec.EllipticCurvePublicKey)
        and isinstance(key.curve, ec.SECP256R1)
        and not list(request.extensions)
        and not list(request.attributes)
        and request.is_signature_valid
    )


@functools.cache
def _words_of_the_software() -> frozenset[str]:
    """Codes of errors, and every upper-case text in the source that a daemon runs: no word is made from data."""
    packages = (lepton_client, lepton_compression, lepton_core, lepton_kg, lepton_pool)
    files = [path for package in packages for path in Path(package.__path__[0]).rglob("*.py")]
    words = {word for path in files for word in re.findall(r'"([A-Z][A-Z0-9_]+)"', path.read_text("utf-8"))}
    return frozenset(words | {kind.code for kind in vars(errors).values() if hasattr(kind, "exit_code")})


def _is_subject(subject: str, told: Told) -> bool:
    return subject in told.concepts() or re.fullmatch(r"(policy|job|terms)(\.[a-z0-9_-]{1,63})+", subject) is not None


def _is_digest(value: str | bytes, _: Told) -> bool:
    return len(value) == 32 if isinstance(value, bytes) else re.fullmatch("[0-9a-f]{64}", value) is not None


def _sized(size: int) -> Check:
    return lambda value, _: len(value) == size


def _one_of(choices: Callable[[Told], Any]) -> Check:
    return lambda value, told: value in choices(told)


def _published(told: Told) -> set[str]:
    return told.links | {delivery.model_digest.hex() for delivery in told.deliveries.values()}


KINDS = (
    Kind("invitation's token", ("EnrolRequest.token",), _one_of(lambda told: {told.token})),
    Kind("certificate request", ("EnrolRequest.csr",), _is_certificate_request),
    Kind(
        "protocol identity",
        ("EnrolRequest.identity_public", "Advert.identity", "LedgerAnchor.identity"),
        _one_of(lambda t: {t.identity}),
    ),
    Kind(
        "signature",
        (
            "EnrolRequest.identity_proof",
            "Advert.signature",
            "ShareMessage.signature",
            "InputTrailer.signature",
            "ConsistencySignature.signature",
            "Unmasking.signature",
            "LedgerAnchor.signature",
        ),
        _sized(64),
    ),
    Kind(
        "version",
        ("Hello.protocol_version", "Hello.software_version"),
        _one_of(lambda _: {PROTOCOL_VERSION, __version__}),
    ),
    Kind(
        "own member id",
        (
            "Hello.member",
            "Advert.member",
            "ShareMessage.dealer",
            "InputTrailer.member",
            "ConsistencySignature.member",
            "Unmasking.member",
        ),
        _one_of(lambda told: {told.member}),
    ),
    Kind(
        "listed member's id",
        ("SealedShares.holder", "ShareDigests.holder", "InputTrailer.paired", "RevealedShare.dealer"),
        _one_of(lambda told: told.members),
    ),
    Kind(
        "job's id",
        ("MatchAnswer.job", "RoundReport.job", "RoundRefusal.job", "UploadHeader.job", "LinksRequest.job"),
        _one_of(lambda told: told.jobs),
    ),
    Kind(
        "round's number",
        ("RoundReport.round", "RoundRefusal.round", "UploadHeader.round"),
        _one_of(lambda told: {number for _, number in told.setups}),
    ),
    Kind(
        "count of commands",
        ("ReportBatch.acknowledged",),
        lambda value, told: 0 < value <= told.commands,
    ),
    Kind(
        "count of ledger entries",
        ("LedgerAnchor.sequence",),
        lambda value, told: 0 < value <= told.openings + sum(2 * job.training.rounds + 2 for job in told.jobs.values()),
    ),
    Kind("digest of the ledger's place", ("LedgerAnchor.digest",), _is_digest),
    Kind("stable word", ("Refusal.code", "Refusal.reason"), lambda word, _: word in _words_of_the_software()),
    Kind("power of ten", ("MatchAnswer.coverage",), lambda *_: False),
    Kind("policy key or concept", ("Refusal.subject",), _is_subject),
    Kind(
        "random or derived from it, 32 bytes",
        (
            "Advert.mask_public",
            "Advert.encryption_public",
            "Advert.seed_commitment",
            "Advert.nonce",
            "ShareDigests.mask_key",
            "ShareDigests.self_seed",
            "RevealedShare.salt",
            "RevealedShare.share",
        ),
        _sized(32),
    ),
    Kind("ciphertext", ("SealedShares.ciphertext",), _sized(CIPHERTEXT_BYTES)),
    Kind(
        "masked words",
        ("UploadChunk.data", "RoundReport.payload"),
        lambda data, told: len(data) in told.payload_bytes(),
    ),
    Kind("digest of masked words", ("UploadHeader.digest", "InputTrailer.payload_digest"), _is_digest),
    Kind(
        "size that follows from the job",
        ("UploadHeader.size", "InputTrailer.payload_bytes"),
        _one_of(Told.payload_bytes),
    ),
    Kind("digest of a link or a model", ("DownloadRequest.digest",), _one_of(_published)),
    Kind(
        "model's version",
        ("LinksRequest.after_version",),
        _one_of(lambda told: {delivery.model_version for delivery in told.deliveries.values()}),
    ),
    Kind(
        "digest of an ontology",
        ("GetOntologyRequest.digest",),
        _one_of(lambda told: {job.task.ontology for job in told.jobs.values()}),
    ),
    Kind("kind of share", ("RevealedShare.kind",), _one_of(lambda _: {1, 2})),
    # An interrupted transfer goes on at the place that the other side named; 0 is not put into the message at all.
    Kind("place to go on at", ("UploadChunk.offset", "DownloadRequest.offset"), lambda value, _: False),
)
KIND_OF = {name: kind for kind in KINDS for name in kind.fields}


def parse(call: Call, message: bytes) -> Message:
    """A request of the daemon, as the message that its RPC takes.

    Raises:
        KeyError: an RPC that no daemon may call.
        DecodeError: other bytes than a message.
    """
    return REQUESTS[call.method].FromString(message)


def values(message: Message) -> Iterator[tuple[str, Any]]:
    """Name and value of every scalar in a message, `Message.field`, in depth; a repeated one comes once an element."""
    for place, content in message.ListFields():
        several = content if not isinstance(content, str | bytes | int | float | Message) else [content]
        for item in several:
            if isinstance(item, Message):
                yield from values(item)
            else:
                yield f"{message.DESCRIPTOR.name}.{place.name}", item


def kinds_of_message(message: Message) -> Iterator[str]:
    """Names of all message types in a message, itself first."""
    yield message.DESCRIPTOR.name
    for _, content in message.ListFields():
        for item in content if not isinstance(content, str | bytes | int | float | Message) else [content]:
            if isinstance(item, Message):
                yield from kinds_of_message(item)


def violations(calls: Sequence[Call], told: Told) -> list[str]:
    """What left the site and is not on the table; `told` grows as the coordinator speaks. Calls in their order."""
    found = []
    for call in sorted(calls, key=lambda call: not call.method.endswith("Session")):
        if call.method.endswith("Session"):
            told.commands = 0
        for from_daemon, raw in call.messages:
            if not from_daemon:
                if call.method.endswith("Session"):
                    told.take(raw)
                continue
            for name, value in values(parse(call, raw)):
                kind = KIND_OF.get(name)
                if kind is None or not kind.allows(value, told):
                    found.append(f"{call.method}: {name} is no {kind.name if kind else 'known field'}: {value!r:.60}")
    return found
