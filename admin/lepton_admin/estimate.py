"""How long a job may be expected to take, from public numbers and a line's speed: for the plan, promised to nobody."""

from __future__ import annotations

from dataclasses import dataclass

from lepton_core.job import Job
from lepton_pool.models import architecture_of, model_layout
from lepton_pool.terms import lane_groups

#: In steady state a round is three exchanges: upload, agreement on the survivors, unmasking.
_EXCHANGES = 3
#: Floating-point operations of a forward and a backward pass, for a parameter and a row; those of one core a second,
#: measured on small models, where most of the time goes into starting operations.
_OPERATIONS, _OPERATIONS_A_SECOND = 6.0, 2e9
#: Time a member and the coordinator take for a round whatever it holds: keys, signatures, a process's answer.
_FIXED_S = 0.1
#: A private step costs about twice a plain one.
_PRIVATE_FACTOR = 2.2


@dataclass(frozen=True)
class Line:
    """A member's way to the coordinator, as the plan assumes it."""

    mbit_s: float = 10.0
    round_trip_ms: float = 50.0


@dataclass(frozen=True)
class Duration:
    """Seconds of a round and its parts; the slowest member sets the pace."""

    exchanges_s: float
    upload_s: float
    download_s: float
    training_s: float
    round_s: float
    job_s: float


def expected_duration(job: Job, line: Line, rows: int) -> Duration:
    """What a round of the job takes a member with so many rows on this line.

    Raises:
        CodecError, JobError: the job's model or encoding cannot be built.
    """
    parameters = model_layout(architecture_of(job)).length
    up_bytes = 8 * sum(group.words for group in lane_groups(job))
    # Masked rounds publish their sum, in the same words; where nothing is masked the model comes down.
    down_bytes = up_bytes if job.aggregation.secure else 4 * parameters
    bytes_a_second = line.mbit_s * 1e6 / 8
    recipe = job.training
    if recipe.batching == "epochs":
        passed = float(recipe.local_epochs * rows)
    else:
        passed = recipe.record_rate * rows * (1 if recipe.batching == "all" else recipe.local_steps)
    factor = _PRIVATE_FACTOR if job.privacy.mode in ("record-local", "record-distributed") else 1.0
    training_s = factor * _OPERATIONS * parameters * passed / _OPERATIONS_A_SECOND
    exchanges_s = _EXCHANGES * line.round_trip_ms / 1e3
    upload_s, download_s = up_bytes / bytes_a_second, down_bytes / bytes_a_second
    round_s = _FIXED_S + exchanges_s + upload_s + download_s + training_s
    return Duration(exchanges_s, upload_s, download_s, training_s, round_s, round_s * recipe.rounds)


def in_words(seconds: float) -> str:
    """A duration as people say it, two significant digits."""
    for unit, length in (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.2g} {unit}" if seconds < 100 * length else f"{seconds / length:.0f} {unit}"
    return f"{seconds:.2g} seconds" if seconds < 100 else f"{seconds:.0f} seconds"
