"""What people and programs are shown of jobs, rounds, models and owners: plain values, no secrets, no records."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class JobState(StrEnum):
    """Where a job stands."""

    MATCHING = "matching"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    ABORTED = "aborted"

    @property
    def ended(self) -> bool:
        """True if nothing more will happen to the job."""
        return self in (JobState.FINISHED, JobState.FAILED, JobState.ABORTED)


@dataclass(frozen=True)
class OwnerMatch:
    """One owner's answer to a job; `state` is pending, can or cannot."""

    owner: str
    state: str
    code: str = ""
    reason: str = ""
    subject: str = ""
    #: How many records serve, as a power of ten, such as `100+`; empty unless the owner's policy tells it.
    coverage: str = ""


@dataclass(frozen=True)
class DroppedMember:
    """A member that left a round; `step` is the step it was last expected in."""

    owner: str
    step: str
    reason: str


@dataclass(frozen=True)
class EncodingView:
    """What a round's updates cost to move, and what encoding them has cost in exactness.

    What is measured is the mean over a round's members, which the sum alone has told; -1 where nothing is, as in
    private jobs and in rounds that did not end.
    """

    #: Name of the encoding and, of a masked round, its profile and mask.
    codec: str = ""
    #: Payload bits of one member over the model's parameters, padding included.
    bits_per_parameter: float = 0.0
    #: Bytes a member needs to follow to the next model.
    bytes_down: int = 0
    #: Expected ||decoded mean - mean||^2 over the squared norm bound, of a full cohort of independent updates.
    expected_error: float = 0.0
    #: Expected share of encoded values that saturate.
    expected_saturation: float = 0.0
    #: Members whose update was longer than the job's bound.
    clipped_members: int = -1
    #: Share of encoded values that saturated.
    saturated_share: float = -1.0
    #: E = sum (x - x_hat)^2 of one member's update as it was sent.
    squared_error: float = -1.0
    #: Relative error of rotating the decoded sum forward again; a sum whose test fails becomes no model.
    decode_residual: float = -1.0


@dataclass(frozen=True)
class RoundView:
    """A round as `lepton round show` tells it. Times are seconds since the epoch; 0 means not yet."""

    job: str
    round: int
    #: The model version the members train on; the round's sum makes the next one.
    model_version: int
    #: running, completed or aborted.
    state: str
    #: advert, share, input, consistency, unmask or done.
    step: str
    #: Owners in the round.
    cohort: tuple[str, ...]
    #: Owners the round waits for in this step.
    waiting_for: tuple[str, ...]
    survivors: tuple[str, ...]
    dropped: tuple[DroppedMember, ...]
    #: Why it was aborted.
    reason: str
    started: float
    ended: float
    #: Masked payload of one member, in bytes.
    payload_bytes: int
    #: Protocol messages received from all members, in bytes.
    message_bytes: int
    #: Pair masks taken off for members that had dropped out.
    pair_masks_reconstructed: int
    encoding: EncodingView = EncodingView()


@dataclass(frozen=True)
class ModelView:
    """A model version with its lineage."""

    job: str
    version: int
    digest: str
    parent: str
    #: The round that made it; 0 for the initial model.
    round: int
    created: float
    #: On the job's public evaluation set; -1 where there is none.
    accuracy: float
    auc: float
    #: Upper bound for one unit of an owner that took part in every round so far; 0 without privacy.
    epsilon: float
    contributors: int
    #: Artifact that leads to it from its parent: signed transcript and sum, or in the plain a difference. Empty for the
    #: initial model, and for what is downloaded whole.
    link: str = ""


@dataclass(frozen=True)
class JobView:
    """A job as `lepton job show` tells it."""

    job: str
    name: str
    state: JobState
    reason: str
    researcher: str
    submitted: float
    ended: float
    rounds_planned: int
    model_version: int
    owners: tuple[OwnerMatch, ...]
    #: mode, unit, neighbour relation, epsilon bound and delta, in words.
    privacy: str
    epsilon: float
    delta: float
    model_parameters: int
    bytes_per_parameter: float
    job_digest: str
    rounds: tuple[RoundView, ...]
    models: tuple[ModelView, ...]


@dataclass(frozen=True)
class JobEvent:
    """One line of `lepton job watch`."""

    #: Counts the events of a job from 1, so that a watcher can go on where it was.
    sequence: int
    time: float
    job: str
    #: matched, refused, started, step, dropped, round, model, finished, failed or aborted.
    kind: str
    round: int
    model_version: int
    #: One sentence for people.
    message: str
    #: The owner concerned, if one is.
    owner: str
    step: str
    cohort: int
    accuracy: float
    auc: float
    epsilon: float
    bytes_up: int


@dataclass(frozen=True)
class OwnerView:
    """An enrolled owner or person."""

    name: str
    role: str
    #: Hex member id; empty for a person.
    member: str
    #: Ed25519 protocol identity, hex; empty for a person.
    identity: str
    enrolled: float
    connected: bool
    certificate_expires: float
    #: Why the operator should ask this owner something; empty if all is well.
    alarm: str = ""


@dataclass(frozen=True)
class Invitation:
    """What `lepton owner invite` hands out, once; the private parts are never stored by the coordinator."""

    name: str
    role: str
    address: str
    token: str
    ca_certificate: str
    ca_fingerprint: str
    bootstrap_certificate: str
    bootstrap_key: str
    expires: float

    def __repr__(self) -> str:
        """Without the secrets."""
        return f"Invitation(name={self.name!r}, role={self.role!r}, address={self.address!r}, expires={self.expires})"


@dataclass(frozen=True)
class HealthView:
    """Whether the coordinator does its work."""

    ready: bool
    software_version: str
    protocol_version: int
    database: str
    connected_members: int
    running_jobs: int
    started: float
    problems: tuple[str, ...]
