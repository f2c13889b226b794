"""What goes over the wire, made by the code that daemons and the coordinator run; the attacks look at nothing else.

| function | what it gives the attacker |
|---|---|
| `plain_upload` | a member's bytes in a job with `secure = false`, as the coordinator receives and parses them |
| `secure_round` | a whole round of ten protocol machines in memory: a member's masked words, and the sum as decoded |

Nothing is simplified but the network: nobody is lost, and the codec's public seed is drawn here, as no job has begun.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

from lepton_client.train.rows import Rows
from lepton_client.train.together import derive_learner
from lepton_compression.update import derive_dither, kept_indices
from lepton_compression.update.pipeline import decode_lanes
from lepton_core.identity import IdentityKey
from lepton_core.ids import MemberId
from lepton_core.job import Job, Training
from lepton_core.layout import Vector
from lepton_core.ports import SystemRandomness
from lepton_core.privacy.plan import required_noise
from lepton_core.privacy.rules import Privacy, PrivacyMode
from lepton_core.ring import Words, unpack
from lepton_core.secagg.payload import encode_payload
from lepton_core.secagg.simulate import run_round
from lepton_core.settings import parse_settings
from lepton_pool.models import architecture_of, initial_vector, model_layout
from lepton_pool.plain import parse_plain
from lepton_pool.steps import Learnt, decode_mean, encode_update
from lepton_pool.terms import derive_ring_plan, derive_terms

SITES = 10
#: Pixels of a digit, eight by eight, in [0, 1].
PIXELS = 64
DELTA = 1e-4

Doubles = npt.NDArray[np.float64]
_RANDOMNESS = SystemRandomness()


def load_rows() -> Rows:
    """Scikit-learn's 1797 handwritten digits."""
    pixels, labels = load_digits(return_X_y=True)
    return Rows((pixels / 16.0).astype(np.float32), labels.astype(np.float32))


def pick(rows: Rows, which: npt.NDArray[np.int64]) -> Rows:
    """Some of the rows."""
    return Rows(rows.features[which], rows.target[which])


def make_job(
    mode: PrivacyMode,
    training: Mapping[str, Any],
    *,
    epsilon: float = 8.0,
    delta: float = DELTA,
    noise_multiplier: float | None = None,
    clip_norm: float = 1.0,
    model: Mapping[str, Any] | None = None,
    features: int = PIXELS,
    classes: int = 10,
    **aggregation: Any,
) -> Job:
    """A job as ten owners accept it; the noise of a private one is derived as at submission, unless it is given."""
    target: dict[str, Any] = {"concept": "target"}
    target |= {"positive": "yes"} if classes == 2 else {"classes": [f"class-{index}" for index in range(classes)]}
    privacy = Privacy(mode=mode, epsilon=epsilon, delta=delta, clip_norm=clip_norm)
    if mode != "none" and noise_multiplier is None:
        noise_multiplier = required_noise(privacy, Training(**training))
    return parse_settings(
        Job,
        {
            "name": "attacked",
            "task": {
                "ontology": "0" * 64,
                "vocabulary": "https://example.org/digits/",
                "features": [{"concept": f"feature-{index}"} for index in range(features)],
                "target": target,
            },
            "model": dict(model or {"kind": "mlp", "hidden": [64]}),
            "training": dict(training),
            "privacy": privacy.model_dump(mode="json") | {"noise_multiplier": noise_multiplier},
            "aggregation": {"min_cohort": SITES, "max_cohort": SITES, **aggregation},
        },
        source="attacked job",
    )


def first_model(job: Job) -> Vector:
    """The weights that everybody starts from, the attacker included."""
    return initial_vector(architecture_of(job))


def model_length(job: Job) -> int:
    """Values of the job's model."""
    return model_layout(architecture_of(job)).length


def learn(job: Job, rows: Rows, *, declared_rows: int = 1) -> Learnt:
    """What a member with these rows learns in the first round, as its training process computes it."""
    return derive_learner(job, rows, declared_rows)(first_model(job), kept_indices(derive_ring_plan(job), bytes(32)))


def plain_upload(job: Job, learnt: Learnt) -> Doubles:
    """The update that the coordinator parses from the bytes of a member of a job without masks, (length,)."""
    member = IdentityKey.generate(_RANDOMNESS).member
    words = encode_update(job, learnt, rows=1, member=member, codec_seed=bytes(32), randomness=_RANDOMNESS)
    return parse_plain(job, encode_payload(words))[0].astype(np.float64)


@dataclass(frozen=True, eq=False)
class SeenRound:
    """What the coordinator has of a secure round."""

    #: The first site's masked words, as stored.
    masked: Words
    #: What the decoder makes of these words alone, taken for a sum, (length,).
    from_masked: Doubles
    #: The sum of all sites' updates as decoded, (length,).
    total: Doubles


def secure_round(job: Job, learnt: Sequence[Learnt]) -> SeenRound:
    """A round of the job over what these members have learnt."""
    keys = [IdentityKey.generate(_RANDOMNESS) for _ in learnt]
    seed = _RANDOMNESS.token(32)
    inputs = {
        key.member: encode_update(job, one, rows=1, member=key.member, codec_seed=seed, randomness=_RANDOMNESS)
        for key, one in zip(keys, learnt, strict=True)
    }
    ended = run_round(keys, inputs, derive_terms(job, bytes(32)), _RANDOMNESS)
    if ended.error is not None:
        raise ended.error
    mean = decode_mean(job, np.concatenate(ended.groups), ended.survivors, seed).mean
    masked = ended.uploads[keys[0].member]
    alone = _decoded_alone(job, masked, ended.survivors, seed)
    return SeenRound(masked, alone.astype(np.float64), mean.astype(np.float64) * len(learnt))


def _decoded_alone(job: Job, masked: Words, survivors: Sequence[MemberId], seed: bytes) -> Vector:
    """Masked words decoded as if they were a sum; past the checks that would refuse them, as an attacker has none."""
    if job.privacy.distributed:
        return decode_mean(job, masked, survivors[:1], seed).mean
    plan = derive_ring_plan(job)
    lanes = unpack(masked[: plan.payload_bytes // 8], plan.lane_bits, plan.padded_length)
    dithers = [derive_dither(seed, member) for member in survivors]
    return decode_lanes(lanes, len(survivors), plan, seed, dithers=dithers)[0]
