"""Which profile and kept fraction serve a target, in bytes or in error: the choice that a job names by its goal.

Both weigh the same two costs: a coordinate that is not sent errs by all of it in one round, and a coarser level errs by
a share of it. Of all profiles, the one that errs least at the bytes allowed, or is smallest at the error allowed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from lepton_compression.update.plan import SMALLEST_BLOCK, Profile, RingPlan, derive_plan
from lepton_core.errors import CodecError


@dataclass(frozen=True)
class Numbers:
    """What is known of a job before its profile is."""

    model_length: int
    update_norm: float
    members_max: int
    dithered: bool
    #: Bytes of a member's payload beside the encoded update, such as its weight.
    extra_bytes: int = 0

    def plan(self, profile: Profile, kept_fraction: float) -> RingPlan:
        """The encoding; CodecError if these numbers allow none."""
        return derive_plan(
            model_length=self.model_length,
            kept_fraction=kept_fraction,
            profile=profile,
            update_norm=self.update_norm,
            members_max=self.members_max,
            dithered=self.dithered,
        )


def plan_for_bytes(numbers: Numbers, bytes_per_parameter: float, *, profile: Profile | None = None) -> RingPlan:
    """Of the encodings of at most so many payload bytes a parameter, padding included, the one that errs least.

    With `profile`, of that profile's.

    Raises:
        CodecError: none is so small, or the numbers allow none at all.
    """
    fitting: list[RingPlan] = []
    smallest = numbers.model_length * 8
    allowed = bytes_per_parameter * numbers.model_length - numbers.extra_bytes
    for named, whole in _whole_plans(numbers, profile):
        kept = min(numbers.model_length, int(numbers.model_length * max(0.0, allowed) / whole.payload_bytes))
        plan = numbers.plan(named, max(1, kept) / numbers.model_length)
        while plan.payload_bytes > allowed and plan.kept_length > SMALLEST_BLOCK:
            plan = numbers.plan(named, (plan.kept_length - SMALLEST_BLOCK) / numbers.model_length)
        smallest = min(smallest, plan.payload_bytes)
        if plan.payload_bytes <= allowed:
            fitting.append(plan)
    if not fitting:
        least = (smallest + numbers.extra_bytes) / numbers.model_length
        raise CodecError(
            "no encoding is so small",
            where="aggregation.bytes_per_parameter",
            expected=f"at least {least:.3g} for a model of {numbers.model_length} parameters",
            got=f"{bytes_per_parameter:g}",
        )
    return min(fitting, key=lambda plan: plan.expected_error)


def plan_for_error(numbers: Numbers, error: float) -> RingPlan:
    """Of the encodings that are expected to err by at most so much (`RingPlan.expected_error`), the smallest.

    Raises:
        CodecError: none is so exact, or the numbers allow none at all.
    """
    fitting: list[RingPlan] = []
    least = float("inf")
    for named, whole in _whole_plans(numbers, None):
        least = min(least, whole.expected_error)
        if whole.expected_error > error:
            continue
        # expected_error = ((1 + e) / p - 1) / n, solved for p; then up to whole blocks.
        share = (1.0 + whole.expected_encoding_error) / (1.0 + numbers.members_max * error)
        plan = whole
        kept = -(-int(numbers.model_length * share + 1) // SMALLEST_BLOCK) * SMALLEST_BLOCK
        while kept < numbers.model_length:
            plan = numbers.plan(named, kept / numbers.model_length)
            if plan.expected_error <= error:
                break
            plan, kept = whole, kept + SMALLEST_BLOCK
        fitting.append(plan)
    if not fitting:
        raise CodecError(
            "no encoding is so exact",
            where="aggregation.error",
            expected=f"at least {least:.3g} for cohorts of {numbers.members_max}",
            got=f"{error:g}",
        )
    return min(fitting, key=lambda plan: plan.payload_bytes)


def _whole_plans(numbers: Numbers, only: Profile | None) -> Iterator[tuple[Profile, RingPlan]]:
    """Every profile that has room for the members, or only this one; all coordinates kept."""
    profiles: tuple[Profile, ...] = get_args(Profile) if only is None else (only,)
    refused: CodecError | None = None
    found = False
    for profile in profiles:
        try:
            plan = numbers.plan(profile, 1.0)
        except CodecError as error:
            refused = error
            continue
        found = True
        yield profile, plan
    if not found and refused is not None:
        raise refused
