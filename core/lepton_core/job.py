"""A job: what is learnt from which concepts, how, under which privacy, and how the updates are added up.

`JobFile` is what a researcher writes in `job.toml`. Submitting resolves it to a `Job`: the files of the public
evaluation set and of first weights become digests, and the noise multiplier is derived. The canonical bytes of the
`Job` are what everybody hashes, signs and refuses or accepts.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from lepton_core.aggregation import Aggregation, AggregationFile, AggregationKeys
from lepton_core.canonical import canonical_json
from lepton_core.errors import JobError
from lepton_core.ids import DIGEST_PATTERN, NAME_PATTERN, Digest
from lepton_core.privacy.rules import Privacy, require_provable
from lepton_core.settings import Fraction, Positive, Settings, parse_settings
from lepton_core.task import Task

#: Version of the canonical form; a daemon refuses a job of a version it does not know.
JOB_FORMAT: Literal[1] = 1


class _ModelBase(Settings):
    #: `logistic`, `mlp`, `cnn`, or the name of an installed `lepton.models` entry point.
    kind: str = Field(default="mlp", pattern=NAME_PATTERN)
    #: Widths of the hidden layers of an `mlp`, or of the head of a `cnn`.
    hidden: tuple[Annotated[int, Field(ge=1, le=65_536)], ...] = Field(default=(32,), max_length=64)
    #: Input of a `cnn` as (channels, height, width); the features fill it row-major.
    image: tuple[int, int, int] | None = None
    #: Output channels of each 3x3 convolution of a `cnn`.
    channels: tuple[Annotated[int, Field(ge=1, le=4_096)], ...] = Field(default=(16, 32), max_length=64)
    #: Public seed of the first weights.
    seed: int = Field(default=0, ge=0, lt=2**63)


class ModelSpec(_ModelBase):
    """Which model, built the same way by everybody; the first weights come from a public seed or artifact."""

    #: SHA-256 (hex) of the safetensors artifact with the first weights; None takes them from the seed.
    initial: str | None = Field(default=None, pattern=DIGEST_PATTERN)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.initial is not None and self.seed:
            raise ValueError("seed has no meaning with initial; leave it out")
        return self


class ModelFile(_ModelBase):
    """Which model, as the researcher writes it."""

    #: safetensors file with the model's first weights, float32, named as in its layout; None takes them from the seed.
    initial_weights: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.initial_weights is not None and self.seed:
            raise ValueError("seed has no meaning with initial_weights; leave it out")
        return self


class ServerOptimizer(Settings):
    """How the averaged update moves the model: x' = x + step(mean update). Reddi et al. 2021, algorithm 2."""

    kind: Literal["fedavg", "fedavgm", "fedadam"] = "fedavg"
    learning_rate: Positive = 1.0
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    second_momentum: float = Field(default=0.99, ge=0.0, lt=1.0)
    adaptivity: Positive = 1e-3


class Training(Settings):
    """The recipe every member follows in each round."""

    rounds: int = Field(default=20, ge=1, le=100_000)
    #: How records come into batches: drawn anew for each step; all of them, epoch by epoch (modes `none` and
    #: `client-distributed`); or all of them in one sum a round (mode `record-distributed`, where it is the default).
    batching: Literal["poisson", "epochs", "all"] = "poisson"
    #: With `poisson`: SGD steps a member takes in a round.
    local_steps: int = Field(default=5, ge=1, le=10_000)
    #: With `poisson`: rate q; each record, or in the unit `subject` each subject with all its records, is in a step's
    #: batch with this probability. Public.
    sampling_rate: Fraction = 0.25
    #: With `epochs`: passes over a member's records in a round.
    local_epochs: int = Field(default=1, ge=1, le=1_000)
    #: With `epochs`: records of a batch; the last of an epoch may be smaller.
    batch_size: int = Field(default=32, ge=1, le=2**31 - 1)
    #: With `epochs`: public seed of the order of records, so that a run can be compared; None draws it in secret.
    shuffle_seed: int | None = Field(default=None, ge=0, lt=2**53)
    #: In mode `record-distributed`: about how many records a member has. Public; every member's sum is divided by it.
    expected_rows: int | None = Field(default=None, ge=1, le=2**31 - 1)
    learning_rate: Positive = 0.5
    server: ServerOptimizer = ServerOptimizer()

    @property
    def record_rate(self) -> float:
        """Chance of a record to be in a step's batch: `sampling_rate`, or 1 where all of them are."""
        return self.sampling_rate if self.batching == "poisson" else 1.0

    def shuffle_of(self, version: int, member: int) -> int | None:
        """The seed of a member's order in the round on this model version; None if it is drawn in secret.

        `member` counts the admitted members of the job's list, sorted, from 0.
        """
        return None if self.shuffle_seed is None else self.shuffle_seed + 1000 * (version + 1) + member

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key in _FOREIGN_KEYS[self.batching]:
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} has no meaning with batching = {self.batching!r}; leave it out")
        return self


_POISSON_KEYS = ("local_steps", "sampling_rate")
_EPOCH_KEYS = ("local_epochs", "batch_size", "shuffle_seed")
_FOREIGN_KEYS = {"poisson": _EPOCH_KEYS, "epochs": _POISSON_KEYS, "all": _POISSON_KEYS + _EPOCH_KEYS}


class Evaluation(Settings):
    """A public evaluation set; looking at it costs no privacy."""

    #: SHA-256 (hex) of the safetensors artifact: `features` (rows, d) and `target` (rows,), the classes; float32.
    digest: str = Field(pattern=DIGEST_PATTERN)
    rows: int = Field(ge=1)


class EvaluationFile(Settings):
    """Where the researcher's public evaluation set lies: a source file and its mapping."""

    source: str
    mapping: str


class _JobBase(Settings):
    name: str = Field(pattern=NAME_PATTERN)
    #: What the owners' policies are asked to allow.
    purpose: str = Field(default="research", pattern=NAME_PATTERN)
    #: The named population whose privacy budget the job spends, as in the owners' policies.
    population: str = Field(default="patients", pattern=NAME_PATTERN)
    task: Task
    training: Training = Training()
    privacy: Privacy = Privacy()
    aggregation: AggregationKeys

    @model_validator(mode="after")
    def _check_recipe(self) -> Self:
        require_provable(self.privacy, self.training, self.aggregation)
        return self


class JobFile(_JobBase):
    """`job.toml`, as the researcher writes it."""

    aggregation: AggregationFile = AggregationFile()
    model: ModelFile = ModelFile()
    evaluation: EvaluationFile | None = None

    @model_validator(mode="before")
    @classmethod
    def _follow_mode(cls, document: object) -> object:
        """What a distributed mode leaves no choice about is filled in where the author has left it out."""
        if not isinstance(document, dict):
            return document
        privacy, training = document.get("privacy"), document.get("training", {})
        if not isinstance(privacy, dict):
            return document
        mode = privacy.get("mode")
        if mode == "client-distributed":
            return {**document, "privacy": {"unit": "member", **privacy}}
        if (
            mode == "record-distributed"
            and isinstance(training, dict)
            and not {*_POISSON_KEYS, "batching"} & {*training}
        ):
            return {**document, "training": {"batching": "all", **training}}
        return document

    def document(self) -> dict[str, Any]:
        """The keys that a resolved job has as well; what is derived or becomes a digest is left out."""
        told = {"model": {"initial_weights"}, "aggregation": {"bytes_per_parameter", "error"}}
        return self.model_dump(mode="json", exclude={"evaluation": True, **told})


class Job(_JobBase):
    """A job as it is hashed, signed and run."""

    format: Literal[1] = JOB_FORMAT
    aggregation: Aggregation = Aggregation()
    model: ModelSpec = ModelSpec()
    evaluation: Evaluation | None = None

    @model_validator(mode="after")
    def _check_noise(self) -> Self:
        if self.privacy.mode != "none" and not self.privacy.noise_multiplier:
            raise ValueError("privacy.noise_multiplier must be derived before a private job is submitted")
        if self.privacy.mode == "none" and self.privacy.noise_multiplier:
            raise ValueError("privacy.noise_multiplier has no meaning in mode none")
        return self

    @cached_property
    def _canonical(self) -> bytes:
        return canonical_json(self.model_dump(mode="json"))

    def canonical(self) -> bytes:
        """The one byte string of this job."""
        return self._canonical

    def digest(self) -> bytes:
        """SHA-256 over the canonical bytes with a label; 32 bytes; bound into every round's terms."""
        return hashlib.sha256(b"lepton/job/v1" + self._canonical).digest()


def parse_job(canonical: bytes) -> Job:
    """The job in its canonical bytes.

    Raises:
        JobError: not JSON, or not canonical.
        SettingsError: a key or value that a job must not have.
    """
    if len(canonical) > 4 * 2**20:
        raise JobError("a job this large is refused", expected="at most 4 MiB", got=f"{len(canonical)} bytes")
    try:
        document = json.loads(canonical)
    except (ValueError, RecursionError) as error:
        raise JobError("a job that is not JSON", got=str(error)[:120]) from None
    if not isinstance(document, dict):
        raise JobError("a job that is not a JSON object", got=type(document).__name__)
    job = parse_settings(Job, document, source="job")
    if job.canonical() != canonical:
        raise JobError("a job that is not in canonical form", hint="submit it with `lepton job submit`")
    return job


def ontology_digest(job: Job) -> Digest:
    """The hash of the ontology version that gives the job's concepts their meaning."""
    return Digest(job.task.ontology)
