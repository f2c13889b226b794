"""What a published sum holds beside the sum of what its members learnt, in jobs with noise in shares."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lepton_compression.update import decode_noised, kept_indices
from lepton_core.chain import Link
from lepton_core.job import Job
from lepton_pool.terms import derive_noise_plan

Doubles = npt.NDArray[np.float64]


def noise_in(job: Job, link: Link, members: int, signal: Doubles) -> Doubles:
    """What a published sum holds beside the sum of the members' vectors, on the kept coordinates: (kept_length,)."""
    plan = derive_noise_plan(job)
    kept = kept_indices(plan.ring, link.codec_seed)
    mean, _ = decode_noised(link.words, members, plan, link.codec_seed)
    return members * mean[kept].astype(np.float64) * (plan.ring.kept_length / plan.ring.model_length) - signal[kept]


def deviation_of_noise(job: Job, members: int) -> float:
    """Standard deviation of a value of `noise_in`: every member's share and its rounding, of whatever it rounds."""
    plan = derive_noise_plan(job)
    return float(np.sqrt(members * (plan.share_variance + 0.125)) / plan.levels_per_unit)
