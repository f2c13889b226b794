"""A researcher's or operator's line to the coordinator: one method a call, plain values in and out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from lepton_admin.artifact_link import ArtifactTransfers
from lepton_admin.ontology_link import OntologyCalls, OntologyVersion
from lepton_core.errors import FaultError
from lepton_core.ids import Digest, JobId, digest_of, require_digest
from lepton_core.views import HealthView, Invitation, JobEvent, JobView, ModelView, OwnerView, RoundView
from lepton_protos import convert
from lepton_protos.bulk import BulkDialer
from lepton_protos.channel import Endpoint, load_endpoint, open_channel
from lepton_protos.incoming import Progress, tell_nobody
from lepton_protos.status import error_from_rpc
from lepton_protos.v1 import (
    identity_pb2,
    identity_pb2_grpc,
    job_pb2,
    job_pb2_grpc,
    kg_pb2_grpc,
)

#: Longest a single call may take; the coordinator answers all of them from its store.
CALL_TIMEOUT_S = 30.0
#: Largest artifact written to a file.
LARGEST_ARTIFACT = 16 * 2**30
#: Largest artifact taken into memory, unless the caller knows better.
LARGEST_IN_MEMORY = 4 * 2**30


class CoordinatorLink:
    """An open channel to one coordinator, with one person's certificate. Close it, or use it in `with`.

    Every method raises the coordinator's own typed error, or `FaultError` if it cannot be reached.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        #: host:port, for messages.
        self.address: str = endpoint.address
        #: Is told of transfers: bytes done, bytes in all.
        self.progress: Progress = tell_nobody
        self._endpoint = endpoint
        self._bulk = BulkDialer(endpoint)
        self._connect()

    @classmethod
    def of_profile(cls, folder: Path) -> CoordinatorLink:
        """The link with the credentials in `folder`, or in its `tls` folder where an enrolment made one.

        Raises:
            InputError: there are no credentials.
        """
        within = folder / "tls"
        return cls(load_endpoint(within if within.is_dir() else folder))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel; a second close does nothing."""
        self._channel.close()

    def _connect(self) -> None:
        self._channel = open_channel(self._endpoint)
        self._owners: Any = _stub(identity_pb2_grpc.OwnersStub, self._channel)
        self._federations: Any = _stub(identity_pb2_grpc.FederationsStub, self._channel)
        self._health: Any = _stub(identity_pb2_grpc.HealthStub, self._channel)
        self._jobs: Any = _stub(job_pb2_grpc.JobsStub, self._channel)
        self._knowledge: Any = _stub(kg_pb2_grpc.KnowledgeServiceStub, self._channel)

    @contextmanager
    def _typed_errors(self) -> Iterator[None]:
        """Calls go in here; after a transport failure the next one has a new channel."""
        try:
            yield
        except grpc.RpcError as failure:
            error = error_from_rpc(failure)
            if isinstance(error, FaultError):
                self._channel.close()
                self._connect()
            raise error from None

    def health(self, timeout_s: float = CALL_TIMEOUT_S) -> HealthView:
        """Whether the coordinator does its work."""
        with self._typed_errors():
            reply = self._health.Report(identity_pb2.HealthRequest(), timeout=timeout_s)
        return convert.from_proto(reply, HealthView)

    def invite(self, name: str, role: str, valid_s: float) -> Invitation:
        """A one-time invitation; its secrets exist nowhere else."""
        request = identity_pb2.InviteRequest(name=name, role=role, valid_s=valid_s)
        with self._typed_errors():
            reply = self._owners.Invite(request, timeout=CALL_TIMEOUT_S)
        return convert.from_proto(reply, Invitation)

    def owners(self) -> tuple[OwnerView, ...]:
        """Every enrolled owner and person."""
        with self._typed_errors():
            reply = self._owners.List(identity_pb2.ListOwnersRequest(), timeout=CALL_TIMEOUT_S)
        return tuple(convert.from_proto(owner, OwnerView) for owner in reply.owners)

    def revoke(self, name: str) -> OwnerView:
        """Refuse this name's certificates from now on."""
        with self._typed_errors():
            reply = self._owners.Revoke(identity_pb2.RevokeRequest(name=name), timeout=CALL_TIMEOUT_S)
        return convert.from_proto(reply, OwnerView)

    def publish_membership(self, signed_list: bytes) -> str:
        """Hand the coordinator a signed membership list to carry; gives the list's digest."""
        request = identity_pb2.PublishMembershipRequest(signed_list=signed_list)
        with self._typed_errors():
            return str(self._federations.Publish(request, timeout=CALL_TIMEOUT_S).digest)

    def submit(self, canonical_job: bytes) -> JobId:
        """Submit a resolved job; gives its id."""
        request = job_pb2.SubmitRequest(canonical_job=canonical_job)
        with self._typed_errors():
            return JobId(self._jobs.Submit(request, timeout=CALL_TIMEOUT_S).job)

    def jobs(self) -> tuple[JobView, ...]:
        """Every job."""
        with self._typed_errors():
            reply = self._jobs.List(job_pb2.ListJobsRequest(), timeout=CALL_TIMEOUT_S)
        return tuple(convert.from_proto(job, JobView) for job in reply.jobs)

    def job(self, job: str) -> JobView:
        """One job with its rounds and models."""
        with self._typed_errors():
            reply = self._jobs.Show(job_pb2.ShowJobRequest(job=job), timeout=CALL_TIMEOUT_S)
        return convert.from_proto(reply, JobView)

    def watch(self, job: str, after: int = 0, timeout_s: float | None = None) -> Iterator[JobEvent]:
        """Events of the job after number `after`, then each as it happens, until the job or the time has ended."""
        stream = self._jobs.Watch(job_pb2.WatchRequest(job=job, after=after), timeout=timeout_s)
        with self._typed_errors():
            try:
                for event in stream:
                    yield convert.from_proto(event, JobEvent)
            except grpc.RpcError:
                if timeout_s is None or stream.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise
            finally:
                stream.cancel()

    def abort(self, job: str, reason: str) -> JobView:
        """End the job without a result."""
        with self._typed_errors():
            reply = self._jobs.Abort(job_pb2.AbortRequest(job=job, reason=reason), timeout=CALL_TIMEOUT_S)
        return convert.from_proto(reply, JobView)

    def round(self, job: str, number: int = 0) -> RoundView:
        """One round; 0 gives the newest."""
        with self._typed_errors():
            reply = self._jobs.ShowRound(job_pb2.ShowRoundRequest(job=job, round=number), timeout=CALL_TIMEOUT_S)
        return convert.from_proto(reply, RoundView)

    def models(self, job: str) -> tuple[ModelView, ...]:
        """The job's model versions, oldest first."""
        with self._typed_errors():
            reply = self._jobs.Models(job_pb2.ListModelsRequest(job=job), timeout=CALL_TIMEOUT_S)
        return tuple(convert.from_proto(model, ModelView) for model in reply.models)

    @property
    def knowledge(self) -> OntologyCalls:
        """Calls about ontology versions."""
        return OntologyCalls(lambda: self._knowledge, self._typed_errors)

    def publish_ontology(self, document: bytes, format: str, label: str) -> OntologyVersion:
        """Publish an ontology document; equal content gives the same version."""
        return self.knowledge.publish(document, format, label)

    def ontology(self, digest: str) -> bytes:
        """Canonical N-Quads of a version; the caller checks them against the digest."""
        return self.knowledge.canonical(digest)

    def ontologies(self) -> tuple[OntologyVersion, ...]:
        """Every published version, oldest first."""
        return self.knowledge.versions()

    def upload(self, data: bytes) -> Digest:
        """Store an artifact under its SHA-256, going on where an interrupted upload ended; gives the digest."""
        digest = digest_of(data)
        self._transfers().upload(data, digest)
        return digest

    def upload_from(self, path: Path) -> Digest:
        """`upload` of a file's content, which is never whole in memory."""
        return self._transfers().upload_from(path)

    def download(self, digest: str, *, largest: int = LARGEST_IN_MEMORY) -> bytes:
        """The artifact's bytes, checked against their digest, at most `largest` of them.

        Raises:
            PeerViolation: the bytes that came are not those asked for.
        """
        return self._transfers().download(require_digest(digest, "artifact digest"), largest=largest)

    def download_to(self, path: Path, digest: str) -> None:
        """Download to a file, which appears whole and durable; a second call goes on where a first one was killed.

        Raises:
            PeerViolation: the bytes that came are not those asked for.
            FaultError: the disk refuses.
        """
        self._transfers().download_to(path, require_digest(digest, "artifact digest"), largest=LARGEST_ARTIFACT)

    def _transfers(self) -> ArtifactTransfers:
        return ArtifactTransfers(self._reconnected, self.progress, self._bulk)

    def _reconnected(self) -> grpc.Channel:
        """A channel that has not failed."""
        self._channel.close()
        self._connect()
        return self._channel


def _stub(kind: Any, channel: grpc.Channel) -> Any:
    """Generated stubs have no annotations; `convert` checks what they return."""
    return kind(channel)
