"""What the participant asks its daemon to do, as data; each that can fail is answered by a call named in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lepton_client.policy import Population
from lepton_compression.update import RingPlan
from lepton_core.ids import Digest, JobId, MemberId, ModelVersion, RoundNumber
from lepton_core.job import Job
from lepton_core.secagg.terms import Setup
from lepton_core.session import MatchAnswer, Published, RoundRefusal, RoundReport


@dataclass(frozen=True)
class SendReport:
    """Send the report to the coordinator; if it is lost, the coordinator asks again."""

    report: MatchAnswer | RoundReport | RoundRefusal


@dataclass(frozen=True)
class Match:
    """Fetch and verify the ontology, compile the owner's mapping and prepare the data; then `matched`."""

    job_id: JobId
    job: Job
    population: Population


@dataclass(frozen=True)
class Train:
    """Compute or fetch the model, check that it follows, train, then `trained` or `training_failed`.

    The charge for its noise is durable.
    """

    job_id: JobId
    job: Job
    setup: Setup
    #: Ed25519 identity keys of the admitted members.
    peers: Mapping[MemberId, bytes]
    model_version: ModelVersion
    model_digest: Digest
    #: Which coordinates are sent, and in a private job trained: `kept_indices(ring_plan, codec_seed)`. There gradients
    #: are clipped on them alone; without privacy, training all of them leads nearer to what all would do.
    ring_plan: RingPlan
    codec_seed: bytes
    #: Public batch denominator: declared rows, or subjects where the job's unit is one, times sampling rate.
    expected_batch: float
    #: Public seed of the order of records; None if they are drawn in secret.
    shuffle: int | None

    @property
    def round(self) -> RoundNumber:
        """The round it is for."""
        return self.setup.round


@dataclass(frozen=True)
class Follow:
    """Keep what a round published, which this member saw to its end: it leads to the next model."""

    job_id: JobId
    published: Published
    sid: bytes
    #: The members whose signed agreement this member has checked; sorted.
    survivors: tuple[MemberId, ...]


@dataclass(frozen=True)
class Upload:
    """Upload the masked payload, then `uploaded` or `upload_failed`. The same payload may be asked for again."""

    job_id: JobId
    round: RoundNumber
    payload: bytes
    digest: Digest
    #: Longest that it is worth trying.
    deadline_s: float

    def __repr__(self) -> str:
        """Without the payload."""
        return f"Upload(job_id={self.job_id!r}, round={self.round}, {len(self.payload)} bytes, digest={self.digest})"


@dataclass(frozen=True)
class Forget:
    """Stop and drop whatever is under way for a round."""

    job_id: JobId
    round: RoundNumber


@dataclass(frozen=True)
class ForgetJob:
    """The job is over: drop its prepared data."""

    job_id: JobId


Effect = SendReport | Match | Train | Follow | Upload | Forget | ForgetJob
