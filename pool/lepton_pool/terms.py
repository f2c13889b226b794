"""A job's terms: derived from the canonical job by coordinator and member alike, so that neither has to be trusted."""

from __future__ import annotations

from functools import lru_cache

from lepton_compression.update import CODEC_VERSION, RingPlan, derive_plan
from lepton_core.job import Job
from lepton_core.secagg.terms import LARGEST_COHORT, LEAST_SECURITY_BITS, LaneGroup, Terms
from lepton_kg.version import COMPILER_VERSION
from lepton_pool.models import architecture_of, model_layout
from lepton_pool.plain import PLAIN_VERSION, plain_lanes
from lepton_pool.weighting import WEIGHT_LANES, is_weighted

#: delta: share of members planned to drop out of a round; Bell et al. 2020 evaluate 0.05 to 0.1.
ASSUMED_DROPOUT = 0.1
#: sigma: statistical security of graph and threshold.
SECURITY_BITS = LEAST_SECURITY_BITS
#: Jobs and lists are immutable, and each side asks for the same terms several times a round.
_MOST_REMEMBERED = 256


@lru_cache(maxsize=_MOST_REMEMBERED)
def derive_ring_plan(job: Job) -> RingPlan:
    """How updates of this job are encoded.

    Raises:
        CodecError: the job's numbers allow no encoding.
        JobError: the model cannot be built from so many features.
    """
    return derive_plan(
        model_length=model_layout(architecture_of(job)).length,
        kept_fraction=job.aggregation.kept_fraction,
        profile=job.aggregation.profile,
        update_norm=job.aggregation.update_norm,
        members_max=most_members(job),
    )


def most_members(job: Job) -> int:
    """Largest cohort of a round; a roster bounds it."""
    return min(job.aggregation.max_cohort, LARGEST_COHORT)


@lru_cache(maxsize=_MOST_REMEMBERED)
def derive_terms(job: Job, membership_digest: bytes) -> Terms:
    """The terms of every round of this job under this membership list (32-byte digest).

    Raises:
        CodecError, JobError: as `derive_ring_plan`.
        InputError: terms that no member accepts.
    """
    layout = model_layout(architecture_of(job))
    terms = Terms(
        job_digest=job.digest(),
        ontology_digest=bytes.fromhex(job.task.ontology),
        membership_digest=membership_digest,
        compiler_version=str(COMPILER_VERSION),
        codec_version=CODEC_VERSION if job.aggregation.secure else PLAIN_VERSION,
        layout_digest=layout.digest(),
        model_length=layout.length,
        lane_groups=_lanes(job),
        min_cohort=job.aggregation.min_cohort,
        max_cohort=most_members(job),
        corruption=job.aggregation.corruption,
        dropout=ASSUMED_DROPOUT,
        security_bits=SECURITY_BITS,
        step_deadline_s=job.aggregation.step_deadline_s,
    )
    terms.require_sound()
    return terms


def _lanes(job: Job) -> tuple[LaneGroup, ...]:
    if not job.aggregation.secure:
        return plain_lanes(job)
    plan = derive_ring_plan(job)
    return LaneGroup(plan.padded_length, plan.lane_bits), *((WEIGHT_LANES,) if is_weighted(job) else ())
