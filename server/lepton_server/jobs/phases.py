"""What a job remembers, and the phases it can be in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lepton_core.ids import Digest, JobId, MemberId, ModelVersion, OwnerName, RoundNumber
from lepton_core.job import Job
from lepton_core.plain import server as plain
from lepton_core.secagg import server_phases as secure
from lepton_core.secagg.terms import Setup, Terms, commit_nonce, labelled_hash
from lepton_core.secagg.transcript import RoundResult
from lepton_core.session import Refusal
from lepton_core.views import DroppedMember, JobState, ModelView

#: The machines of a round in the plain, and of any round.
PlainPhase = plain.Phase
RoundPhase = secure.Phase | plain.Phase
RoundEnd = RoundResult | plain.PlainResult

#: Rounds are counted from 1.
FIRST_ROUND = RoundNumber(1)


@dataclass(frozen=True)
class Peer:
    """A member as the membership list names it."""

    owner: OwnerName
    #: Ed25519 public key, 32 bytes.
    identity: bytes


@dataclass(frozen=True)
class Facts:
    """What never changes about a job."""

    job_id: JobId
    job: Job
    terms: Terms
    #: The signed membership list, as bytes; members check it against their own.
    membership: bytes
    #: Who is asked: every listed member that is enrolled.
    peers: Mapping[MemberId, Peer]
    #: 32 random bytes that the rounds' nonces are derived from.
    secret: bytes = field(repr=False)
    researcher: OwnerName
    submitted: float
    #: Masked payload of one member, over the model's parameters.
    bytes_per_parameter: float

    def nonce(self, number: RoundNumber) -> bytes:
        """The coordinator's nonce of a round; unknown to members until the roster opens it."""
        return labelled_hash(b"lepton/server/v1/nonce", self.secret, number.to_bytes(8, "big"))

    def setup(self, number: RoundNumber) -> Setup:
        """What opens a round."""
        return Setup(self.job_id, number, self.terms, commit_nonce(self.nonce(number)))

    def owner(self, member: MemberId) -> str:
        """The member's name for people."""
        peer = self.peers.get(member)
        return peer.owner if peer is not None else member.hex()

    def owners(self, members: tuple[MemberId, ...] | frozenset[MemberId]) -> tuple[str, ...]:
        """The members' names, sorted."""
        return tuple(sorted(self.owner(member) for member in members))


@dataclass(frozen=True)
class RoundRecord:
    """What is told of a round, beside the protocol machine's own state."""

    number: RoundNumber
    cohort: tuple[MemberId, ...]
    started: float
    #: When the step now running ends at the latest.
    deadline: float
    dropped: tuple[DroppedMember, ...] = ()
    #: Members that said no, with the newest reason of each.
    refusals: tuple[tuple[MemberId, Refusal], ...] = ()
    #: How many messages of each member were rejected.
    rejected: Mapping[MemberId, int] = field(default_factory=dict)
    message_bytes: int = 0
    #: Digest of each member's masked words.
    payloads: Mapping[MemberId, Digest] = field(default_factory=dict)
    #: Artifact with the sum of the survivors' masked words, once they are frozen.
    total: Digest | None = None


@dataclass(frozen=True)
class Ahead:
    """The next round, whose keys are made while the model is not: steps 0 and 1 of the protocol.

    Its steps change nothing of the job but this, so that a checkpoint need not hold it: a journal of them rebuilds it.
    """

    record: RoundRecord
    protocol: RoundPhase


@dataclass(frozen=True)
class Roll:
    """What a job remembers from round to round."""

    #: Every answer so far; None means the owner takes part.
    answers: Mapping[MemberId, Refusal | None] = field(default_factory=dict)
    #: What owners whose policy tells it have said of how many records serve, as `100+`.
    coverage: Mapping[MemberId, str] = field(default_factory=dict)
    #: The newest model; None until the initial one is made.
    model: ModelView | None = None
    optimizer: Digest | None = None
    #: The newest model packed for members without the one before; None where models go down whole or are computed.
    snapshot: Digest | None = None
    next_round: RoundNumber = FIRST_ROUND
    #: Rounds aborted since the last completed one.
    aborted_in_row: int = 0
    #: Members that may have answered on the newest model version: they must not be asked again on it.
    answered: frozenset[MemberId] = frozenset()
    #: Announcements made.
    events: int = 0
    #: Versions whose metrics are not known yet, oldest first.
    unevaluated: tuple[ModelView, ...] = ()
    #: The round that has been opened and not begun.
    ahead: Ahead | None = None

    @property
    def version(self) -> ModelVersion:
        """The newest model's version."""
        return ModelVersion(self.model.version if self.model is not None else 0)

    @property
    def willing(self) -> frozenset[MemberId]:
        """Members that take part in the job."""
        return frozenset(member for member, refusal in self.answers.items() if refusal is None)

    @property
    def eligible(self) -> frozenset[MemberId]:
        """Members that may be in the next round."""
        return self.willing - self.answered


@dataclass(frozen=True)
class Matching:
    """Owners are asked whether they take part; the initial model is made meanwhile."""

    roll: Roll


@dataclass(frozen=True)
class Waiting:
    """Between rounds: the next one begins as soon as enough eligible members are connected."""

    roll: Roll
    since: float


@dataclass(frozen=True)
class Rounding:
    """A round runs."""

    roll: Roll
    record: RoundRecord
    protocol: RoundPhase


@dataclass(frozen=True)
class Aggregating:
    """The round's sum is known to exist; it is being turned into the next model."""

    roll: Roll
    record: RoundRecord
    result: RoundEnd


@dataclass(frozen=True)
class Finishing:
    """All rounds are done; metrics of the last versions are awaited."""

    roll: Roll


@dataclass(frozen=True)
class Ended:
    """Nothing more will happen."""

    roll: Roll
    state: JobState
    reason: str
    time: float


Phase = Matching | Waiting | Rounding | Aggregating | Finishing | Ended
