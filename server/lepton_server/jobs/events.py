"""What happens to a job, and what the coordinator does about it: plain values.

Events of the machine are journaled before their effects are performed; replaying them gives the same state again.
`Input`s come from sessions, timers and workers; the coordinator turns them into events of the jobs concerned.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lepton_core.errors import LeptonError
from lepton_core.ids import Digest, JobId, MemberId, ModelVersion, RoundNumber
from lepton_core.job import Job
from lepton_core.secagg.messages import MemberMessage
from lepton_core.secagg.terms import Setup
from lepton_core.session import MatchAnswer, Refusal, RoundRefusal, RoundReport, ServerCommand
from lepton_core.views import JobEvent, ModelView, RoundView
from lepton_server.jobs.phases import RoundEnd

# ---- inputs of the coordinator -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MemberConnected:
    """A member's session has opened."""

    member: MemberId


@dataclass(frozen=True)
class MemberLost:
    """A member's session has ended, and did not come back within the grace time."""

    member: MemberId


@dataclass(frozen=True)
class Reported:
    """A member said something that concerns a job."""

    member: MemberId
    report: MatchAnswer | RoundReport | RoundRefusal
    #: The report without its payload, as a journal keeps it; empty where it is still to be made.
    encoded: bytes = b""


@dataclass(frozen=True)
class TimerFired:
    """A timer set by `SetTimer` has run out."""

    key: str


@dataclass(frozen=True)
class InitialModelReady:
    """The initial model lies in the artifact store."""

    job: JobId
    digest: Digest


@dataclass(frozen=True)
class InitialModelFailed:
    """The initial model could not be made."""

    job: JobId
    error: LeptonError


@dataclass(frozen=True)
class AggregateDone:
    """A round's sum has become the next model version."""

    job: JobId
    round: RoundNumber
    digest: Digest
    #: Artifact with the server optimizer's state.
    optimizer: Digest
    #: Artifact with the round's link, or in the plain with a difference, for members; empty if they need another.
    link: Digest
    #: False if the new model equals the old one in every parameter.
    changed: bool
    pair_masks_reconstructed: int
    #: Bytes that a member needs to follow to the new model.
    bytes_down: int = 0
    #: `lepton_pool.measured.Measured`, or -1 each.
    clipped_members: int = -1
    saturated_share: float = -1.0
    squared_error: float = -1.0
    #: Relative error of the decoding's self-test; -1 where nothing is decoded.
    decode_residual: float = -1.0
    #: Artifact with the new model packed on its own; None where members compute it or download it whole.
    snapshot: Digest | None = None


@dataclass(frozen=True)
class AggregateFailed:
    """A round's sum could not be turned into a model."""

    job: JobId
    round: RoundNumber
    error: LeptonError


@dataclass(frozen=True)
class EvaluateDone:
    """A model version's metrics on the public evaluation set; -1 where there is none."""

    job: JobId
    version: ModelVersion
    accuracy: float
    auc: float
    epsilon: float


@dataclass(frozen=True)
class EvaluateFailed:
    """A model version could not be evaluated."""

    job: JobId
    version: ModelVersion
    error: LeptonError


WorkDone = InitialModelReady | InitialModelFailed | AggregateDone | AggregateFailed | EvaluateDone | EvaluateFailed
Input = MemberConnected | MemberLost | Reported | TimerFired | WorkDone

# ---- events of the job machine -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MatchAnswered:
    """An owner takes part, or does not."""

    member: MemberId
    refusal: Refusal | None
    #: See `MatchAnswer.coverage`.
    coverage: str = ""


@dataclass(frozen=True)
class RoundOpened:
    """The keys of the next round are made by these members, sorted; one that was opened before is given up."""

    cohort: tuple[MemberId, ...]


@dataclass(frozen=True)
class RoundBegun:
    """The round that was opened trains on the newest model."""


@dataclass(frozen=True)
class TotalKept:
    """The sum of the survivors' masked words lies in the artifact store."""

    round: RoundNumber
    digest: Digest


@dataclass(frozen=True)
class RoundMessage:
    """A member's message of the running round."""

    member: MemberId
    round: RoundNumber
    message: MemberMessage
    #: Bytes of the report, without the masked words.
    size: int
    #: True for an input whose words came with it and are not in the artifact store yet.
    inline: bool = False
    #: The report as the journal keeps it, if it was made already; it says nothing that `message` does not.
    report: bytes = field(default=b"", compare=False, repr=False)


@dataclass(frozen=True)
class MemberLeft:
    """A member of the running round is gone, or refused to go on."""

    member: MemberId
    round: RoundNumber
    refusal: Refusal | None


@dataclass(frozen=True)
class DeadlinePassed:
    """The timer of this key ran out."""

    key: str


@dataclass(frozen=True)
class AbortRequested:
    """A person wants the job to end."""

    reason: str
    by: str


MachineEvent = (
    MatchAnswered
    | RoundOpened
    | RoundBegun
    | RoundMessage
    | TotalKept
    | MemberLeft
    | DeadlinePassed
    | AbortRequested
    | WorkDone
)


@dataclass(frozen=True)
class Stamped:
    """An event and when the coordinator took it in; seconds since the epoch."""

    time: float
    event: MachineEvent


# ---- effects -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tell:
    """Push a command to a member, if it is connected; it is repeated as long as it stands."""

    member: MemberId
    command: ServerCommand


@dataclass(frozen=True)
class SetTimer:
    """Feed `TimerFired(key)` at that time."""

    key: str
    at: float


@dataclass(frozen=True)
class CancelTimer:
    """Forget the timer."""

    key: str


@dataclass(frozen=True)
class RunInitialModel:
    """Make the initial model from its public seed, or check the artifact that it is."""

    job_id: JobId
    job: Job


@dataclass(frozen=True)
class RunAggregate:
    """Unmask, decode and step the model; answered by `AggregateDone` or `AggregateFailed`."""

    job_id: JobId
    job: Job
    setup: Setup
    #: Artifact with the sum of the survivors' masked words; empty in the plain.
    total: Digest
    result: RoundEnd
    model: Digest
    #: The version that members trained on: that of `model`.
    version: ModelVersion
    #: None before the first step.
    optimizer: Digest | None

    @property
    def round(self) -> RoundNumber:
        """The round whose sum it is."""
        return self.setup.round


@dataclass(frozen=True)
class RunAdd:
    """Add an uploaded input to its round's sum, so that little is left to add when the survivors are frozen."""

    setup: Setup
    payload: Digest


@dataclass(frozen=True)
class RunEvaluate:
    """Compute a version's metrics and what it has cost in privacy so far."""

    job_id: JobId
    job: Job
    version: ModelVersion
    digest: Digest


@dataclass(frozen=True)
class ForgetPayloads:
    """Masked words, and sums of them, that nothing needs any more."""

    digests: tuple[Digest, ...]


@dataclass(frozen=True)
class SweepArtifacts:
    """Delete what no job names any more: a job has ended, whose optimizer states and snapshots nothing needs now."""


@dataclass(frozen=True)
class Announce:
    """Something watchers of the job are shown."""

    event: JobEvent


@dataclass(frozen=True)
class RecordModel:
    """A model version's row, new or with its metrics."""

    view: ModelView


@dataclass(frozen=True)
class RecordRound:
    """A round's row as it now stands."""

    view: RoundView


@dataclass(frozen=True)
class Audit:
    """A decision for the hash-chained audit log."""

    actor: str
    action: str
    detail: str


@dataclass(frozen=True)
class Reject:
    """Tell a member that what it sent was not taken, and why."""

    member: MemberId
    error: LeptonError


#: What a step decides. `RecordModel`, `RecordRound` and `Audit` are written with the transition, the rest is performed
#: by the pump afterwards.
Effect = (
    Tell
    | SetTimer
    | CancelTimer
    | RunInitialModel
    | RunAggregate
    | RunAdd
    | RunEvaluate
    | ForgetPayloads
    | SweepArtifacts
    | Announce
    | Reject
    | RecordModel
    | RecordRound
    | Audit
)
