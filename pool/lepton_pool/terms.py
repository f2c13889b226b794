"""A job's terms: derived from the canonical job by coordinator and member alike, so that neither has to be trusted."""

from __future__ import annotations

from functools import lru_cache

from lepton_compression.update import CODEC_VERSION, Noise, NoisedPlan, RingPlan, derive_noised_plan, derive_plan
from lepton_core.errors import JobError
from lepton_core.job import Job
from lepton_core.secagg.terms import LARGEST_COHORT, LEAST_SECURITY_BITS, LaneGroup, Terms
from lepton_core.views import EncodingView
from lepton_kg.version import COMPILER_VERSION
from lepton_pool.measured import MEASURED_LANES, is_measured
from lepton_pool.models import architecture_of, model_layout
from lepton_pool.plain import plain_lanes, plain_version
from lepton_pool.weighting import WEIGHT_LANES, is_weighted

#: delta: share of members planned to drop out of a round; Bell et al. 2020 evaluate 0.05 to 0.1.
ASSUMED_DROPOUT = 0.1
#: sigma: statistical security of graph and threshold.
SECURITY_BITS = LEAST_SECURITY_BITS
#: Jobs and lists are immutable, and each side asks for the same terms several times a round.
_MOST_REMEMBERED = 256


@lru_cache(maxsize=_MOST_REMEMBERED)
def derive_ring_plan(job: Job) -> RingPlan:
    """How updates of this job are encoded; with distributed noise, without the noise.

    Raises:
        CodecError: the job's numbers allow no encoding.
        JobError: the model cannot be built from so many features.
    """
    if job.privacy.distributed:
        return derive_noise_plan(job).ring
    layout = model_layout(architecture_of(job))
    return derive_plan(
        model_length=layout.length,
        kept_fraction=job.aggregation.kept_fraction,
        profile=job.aggregation.profile,
        update_norm=job.aggregation.update_norm,
        members_max=most_members(job),
        # Rounding is no part of what keeps the promise: what is rounded is noised already, or not private.
        dithered=True,
        shapes=[place.shape for place in layout.places] if job.aggregation.mask == "rows" else (),
    )


@lru_cache(maxsize=_MOST_REMEMBERED)
def derive_noise_plan(job: Job) -> NoisedPlan:
    """How members of a job with distributed noise encode, and the noise each of them adds.

    Raises:
        CodecError: no lane is wide enough for the job's noise.
        JobError: the model cannot be built, or the job's noise is not distributed.
    """
    privacy, recipe = job.privacy, job.training
    if not privacy.distributed or privacy.noise_multiplier is None:
        raise JobError("a job without distributed noise", where="privacy.mode", got=privacy.mode)
    layout = model_layout(architecture_of(job))
    whole = privacy.mode == "client-distributed"
    bound = 1.0 if whole else float(recipe.expected_rows or 1)
    return derive_noised_plan(
        model_length=layout.length,
        kept_fraction=job.aggregation.kept_fraction,
        unit_norm=privacy.clip_norm,
        largest_norm=privacy.clip_norm * bound,
        members_max=most_members(job),
        noise=Noise(privacy.noise_multiplier, job.aggregation.min_cohort, privacy.colluders),
        whole=whole,
        shapes=[place.shape for place in layout.places] if job.aggregation.mask == "rows" else (),
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
        codec_version=CODEC_VERSION if job.aggregation.secure else plain_version(job),
        layout_digest=layout.digest(),
        model_length=layout.length,
        lane_groups=lane_groups(job),
        min_cohort=job.aggregation.min_cohort,
        max_cohort=most_members(job),
        corruption=job.aggregation.corruption,
        dropout=ASSUMED_DROPOUT,
        security_bits=SECURITY_BITS,
        step_deadline_s=job.aggregation.step_deadline_s,
    )
    terms.require_sound()
    return terms


@lru_cache(maxsize=_MOST_REMEMBERED)
def expected_encoding(job: Job) -> EncodingView:
    """What a round's encoding is expected to cost, from public numbers alone; nothing is measured yet.

    Raises:
        CodecError, JobError: as `derive_ring_plan`.
    """
    length = model_layout(architecture_of(job)).length
    bits = 8.0 * sum(8 * group.words for group in lane_groups(job)) / length
    if not job.aggregation.secure:
        return EncodingView(codec=plain_version(job), bits_per_parameter=bits)
    plan = derive_ring_plan(job)
    mask = "" if plan.kept_length == length else f", {plan.kept_length / length:.1%} of {job.aggregation.mask}"
    if job.privacy.distributed:
        return EncodingView(
            codec=f"{CODEC_VERSION} {plan.lane_bits}-bit integers with noise{mask}",
            bits_per_parameter=bits,
            expected_error=derive_noise_plan(job).expected_error,
        )
    return EncodingView(
        codec=f"{CODEC_VERSION} {plan.profile}{mask}",
        bits_per_parameter=bits,
        expected_error=plan.expected_error,
        expected_saturation=plan.expected_saturation,
    )


def lane_groups(job: Job) -> tuple[LaneGroup, ...]:
    """What a member's words hold, one group behind another: the update, its weight, what encoding has cost."""
    if not job.aggregation.secure:
        return plain_lanes(job)
    plan = derive_ring_plan(job)
    groups = [LaneGroup(plan.padded_length, plan.lane_bits)]
    if is_weighted(job):
        groups.append(WEIGHT_LANES)
    if is_measured(job):
        groups.append(MEASURED_LANES)
    return tuple(groups)
