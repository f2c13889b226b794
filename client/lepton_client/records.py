"""What a daemon must remember for ever: the jobs it accepted, and the model versions it answered on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from lepton_client.disk import SYSTEM_DISK, Disk
from lepton_client.journal import Journal, read_lines
from lepton_core.canonical import canonical_json
from lepton_core.errors import ConflictError, InputError, LeptonError
from lepton_core.ids import Digest, JobId, MemberId, ModelVersion, require_digest, require_name
from lepton_core.job import Job, parse_job
from lepton_core.membership import MembershipList, SignedList


@dataclass(frozen=True)
class AcceptedJob:
    """A job this owner takes part in, under the membership list it was matched with."""

    job_id: JobId
    job: Job
    #: The signed list whose digest every round's terms must name.
    membership: SignedList
    #: Digest of the owner's data plan, for the ledger only.
    plan: Digest
    #: What the rows were when they were last prepared, as `Charge.content`; empty if not known.
    content: str = ""
    #: Why the job is over; empty while it goes on.
    closed: str = ""

    @property
    def members(self) -> MembershipList:
        """The list itself."""
        return self.membership.members

    def shuffle_of(self, version: ModelVersion, member: MemberId) -> int | None:
        """The public seed of the order in which this member takes its records; None if the job has none."""
        place = sorted(self.members.admitted()).index(member)
        return self.job.training.shuffle_of(version, place)


class Records(Protocol):
    """What the participant asks of the owner's memory."""

    def jobs(self) -> Mapping[JobId, AcceptedJob]:
        """Every job ever accepted."""
        ...

    def accept(self, accepted: AcceptedJob) -> None:
        """Make an acceptance durable; a later one of the same job replaces it.

        Raises:
            FaultError: the disk; the owner must not answer that it takes part.
        """
        ...

    def close_job(self, job_id: JobId, state: str) -> None:
        """Make durable that an accepted job is over.

        Raises:
            FaultError: the disk.
        """
        ...

    def answered(self, job_id: JobId) -> frozenset[ModelVersion]:
        """The model versions of a job on which this owner has unmasked a sum."""
        ...

    def has_answered_on(self, job_id: JobId, model: Digest) -> bool:
        """Whether this owner has unmasked a sum on this model of a job, whatever version the coordinator called it."""
        ...

    def record_answer(self, job_id: JobId, version: ModelVersion, model: Digest) -> None:
        """Make durable that this owner answers on a model version, before the answer leaves: once, for ever.

        Two sums over nearly the same updates would give one update by subtraction.

        Raises:
            ConflictError: it has answered on this version, or on this model under another version.
            FaultError: the disk; the answer must not leave.
        """
        ...


class MemoryRecords:
    """Records that live as long as the object, for simulations and tests."""

    def __init__(self) -> None:
        self._jobs: dict[JobId, AcceptedJob] = {}
        #: Versions and models answered on, by job. The versions are never changed in place: others hold them.
        self._versions: dict[JobId, frozenset[ModelVersion]] = {}
        self._models: dict[JobId, set[Digest]] = {}

    def jobs(self) -> Mapping[JobId, AcceptedJob]:
        """See `Records.jobs`."""
        return self._jobs

    def accept(self, accepted: AcceptedJob) -> None:
        """See `Records.accept`."""
        self._keep_job(accepted)
        self._jobs[accepted.job_id] = accepted

    def close_job(self, job_id: JobId, state: str) -> None:
        """See `Records.close_job`."""
        if job_id in self._jobs and not self._jobs[job_id].closed:
            closed = replace(self._jobs[job_id], closed=state)
            self._keep_close(closed)
            self._jobs[job_id] = closed

    def answered(self, job_id: JobId) -> frozenset[ModelVersion]:
        """See `Records.answered`."""
        return self._versions.get(job_id, frozenset())

    def has_answered_on(self, job_id: JobId, model: Digest) -> bool:
        """See `Records.has_answered_on`."""
        return model in self._models.get(job_id, ())

    def record_answer(self, job_id: JobId, version: ModelVersion, model: Digest) -> None:
        """See `Records.record_answer`."""
        if version in self.answered(job_id) or self.has_answered_on(job_id, model):
            raise ConflictError(
                "this owner has answered on this model version already",
                where=f"job {job_id}, model version {version}",
                expected="one answer a model version, for ever",
                hint="the coordinator may retry only with members that have not answered",
                reason="ANSWERED_ALREADY",
            )
        self._keep_answer(job_id, version, model)
        self._remember(job_id, [version], [model])

    def _remember(self, job_id: JobId, versions: Iterable[ModelVersion], models: Iterable[Digest]) -> None:
        self._versions[job_id] = self.answered(job_id).union(versions)
        self._models.setdefault(job_id, set()).update(models)

    def _keep_job(self, accepted: AcceptedJob) -> None:
        """Make an acceptance durable; memory needs nothing."""

    def _keep_close(self, closed: AcceptedJob) -> None:
        """Make a closing durable; memory needs nothing."""

    def _keep_answer(self, job_id: JobId, version: ModelVersion, model: Digest) -> None:
        """Make an answer durable; memory needs nothing."""


class FileRecords(MemoryRecords):
    """Records in two files of JSON lines, `jobs.jsonl` and `answers.jsonl`, one process at a time."""

    def __init__(self, jobs: Path, answers: Path, disk: Disk = SYSTEM_DISK) -> None:
        """Open, lock and read both files.

        Raises:
            ConflictError: another daemon holds them.
            InputError: a line that cannot be read; a daemon that has forgotten must not go on.
            FaultError: the disk.
        """
        super().__init__()
        self._job_journal = Journal(jobs, disk)
        try:
            self._answer_journal = Journal(answers, disk)
        except LeptonError:
            self._job_journal.close()
            raise
        try:
            self._jobs.update(_parse_jobs(self._job_journal.lines, jobs))
            for job_id, known in _parse_answers(self._answer_journal.lines, answers).items():
                self._remember(job_id, known, known.values())
        except LeptonError:
            self.close()
            raise

    def close(self) -> None:
        """Let another process open them."""
        self._job_journal.close()
        self._answer_journal.close()

    def _keep_job(self, accepted: AcceptedJob) -> None:
        document = {
            "job_id": accepted.job_id,
            "job": accepted.job.canonical().decode(),
            "membership": accepted.membership.to_json().decode(),
            "plan": accepted.plan,
            "content": accepted.content,
        }
        self._job_journal.append(canonical_json({"accepted": document}))

    def _keep_close(self, closed: AcceptedJob) -> None:
        self._job_journal.append(canonical_json({"closed": {"job_id": closed.job_id, "state": closed.closed}}))

    def _keep_answer(self, job_id: JobId, version: ModelVersion, model: Digest) -> None:
        document = {"job_id": job_id, "model": model, "model_version": int(version)}
        self._answer_journal.append(canonical_json(document))


def read_jobs(path: Path) -> Mapping[JobId, AcceptedJob]:
    """The jobs in a file that a daemon may be writing.

    Raises:
        InputError: a line that cannot be read.
    """
    return _parse_jobs(read_lines(path), path)


def _parse_jobs(lines: tuple[bytes, ...], path: Path) -> dict[JobId, AcceptedJob]:
    jobs: dict[JobId, AcceptedJob] = {}
    for number, line in enumerate(lines, 1):
        where = f"{path}, line {number}"
        document = _parse(line, dict, where)
        if "accepted" in document:
            accepted = _parse(line, lambda read: _parse_accepted(read["accepted"]), where)
            jobs[accepted.job_id] = accepted
        else:
            job_id, state = _parse(line, _parse_closed, where)
            if job_id in jobs:
                jobs[job_id] = replace(jobs[job_id], closed=state)
    return jobs


def _parse_accepted(document: Mapping[str, str]) -> AcceptedJob:
    return AcceptedJob(
        job_id=JobId(require_name(document["job_id"], "job id")),
        job=parse_job(document["job"].encode()),
        membership=SignedList.from_json(document["membership"].encode(), source="an accepted job's membership list"),
        plan=require_digest(document["plan"], "plan digest"),
        content=document.get("content", ""),
    )


def _parse_closed(document: Any) -> tuple[JobId, str]:
    return JobId(document["closed"]["job_id"]), str(document["closed"]["state"])


def _parse_answers(lines: tuple[bytes, ...], path: Path) -> dict[JobId, dict[ModelVersion, Digest]]:
    answers: dict[JobId, dict[ModelVersion, Digest]] = {}
    for number, line in enumerate(lines, 1):
        job_id, version, model = _parse_answer(line, f"{path}, line {number}")
        answers.setdefault(job_id, {})[version] = model
    return answers


def _parse_answer(line: bytes, where: str) -> tuple[JobId, ModelVersion, Digest]:
    def build(read: Any) -> tuple[JobId, ModelVersion, Digest]:
        return JobId(read["job_id"]), ModelVersion(int(read["model_version"])), require_digest(read["model"], "model")

    return _parse(line, build, where)


T = TypeVar("T")


def _parse(line: bytes, build: Callable[[Any], T], where: str) -> T:
    try:
        return build(json.loads(line))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(
            "a line of the daemon's records that cannot be read",
            where=where,
            expected="one JSON record",
            hint="restore the file; a daemon that has forgotten its answers must enrol as a new member",
        ) from None
