"""What a job says about privacy, and what is refused because nobody could prove it.

| mode | protects | noise |
|---|---|---|
| `record-local` | a record or subject, against all outside its site | all of it at each site, in each of its steps |
| `record-distributed` | the same, against all who see the sums | a share at each site, on one clipped sum a round |
| `client-distributed` | a whole member, against the same | a share at each member, on its clipped update |
| `none` | nobody | none |

Noise in shares is a Gaussian mechanism on a sum of vectors that are clipped before they are added up. After a second
local step a record has moved the gradients of all others, so that no bound on one record's part in the sum is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Protocol, Self

from pydantic import Field, model_validator

from lepton_core.privacy.units import UNIT_MEMBER, UNIT_RECORD, UNIT_SUBJECT, Unit
from lepton_core.settings import Positive, Settings

PrivacyMode = Literal["record-local", "record-distributed", "client-distributed", "none"]

#: Far inside what float32 holds exactly, so that no job can push clipping or noise into rounding that nobody counts.
Scale = Annotated[float, Field(ge=1e-6, le=1e6)]

#: Fewer members than this cannot hide one of them at a noise that leaves anything to learn.
LEAST_CLIENT_COHORT = 100
#: Modes whose noise is whole only in a sum of enough members.
DISTRIBUTED_MODES: tuple[PrivacyMode, ...] = ("record-distributed", "client-distributed")
#: Modes in which each record's gradient is clipped, on the round's kept coordinates alone.
RECORD_MODES: tuple[PrivacyMode, ...] = ("record-local", "record-distributed")

#: Whom each mode can protect; where it protects nobody, the unit is left as it is.
_UNITS: Mapping[PrivacyMode, tuple[Unit, ...]] = {
    "record-local": (UNIT_RECORD, UNIT_SUBJECT),
    "record-distributed": (UNIT_RECORD, UNIT_SUBJECT),
    "client-distributed": (UNIT_MEMBER,),
    "none": (UNIT_RECORD,),
}


class Privacy(Settings):
    """What is promised, and the noise that keeps it."""

    #: `none` needs the explicit permission of every owner's policy.
    mode: PrivacyMode = "record-local"
    #: Upper bound on epsilon for the whole job, for one unit, add-or-remove neighbours.
    epsilon: Positive = 8.0
    delta: float = Field(default=1e-3, gt=0.0, lt=1.0)
    #: Whose addition or removal must not show: a record, or a subject with all its records at a site; `member`, a
    #: whole site, in mode `client-distributed` alone.
    unit: Unit = UNIT_RECORD
    #: L2 norm each record's, or subject's, gradient is clipped to; in mode `client-distributed` each member's update.
    clip_norm: Scale = 1.0
    #: With distributed noise: members that may tell the coordinator their shares without breaking the promise.
    colluders: int = Field(default=0, ge=0, le=100_000)
    #: Standard deviation of the noise over the sensitivity; derived at submission, checked by every owner.
    noise_multiplier: float | None = Field(default=None, ge=0.0)

    @property
    def distributed(self) -> bool:
        """True if the noise is whole only in the sum."""
        return self.mode in DISTRIBUTED_MODES

    @model_validator(mode="after")
    def _check(self) -> Self:
        units = _UNITS[self.mode]
        if self.unit not in units:
            told, written = " or a ".join(units), " or ".join(repr(unit) for unit in units)
            raise ValueError(
                f"unit: mode {self.mode!r} protects a {told}; expected unit = {written}, got {self.unit!r}"
            )
        if self.colluders and not self.distributed:
            raise ValueError(f"colluders has no meaning with mode = {self.mode!r}, whose noise is no member's share")
        return self


class _Recipe(Protocol):
    @property
    def batching(self) -> str: ...
    @property
    def local_steps(self) -> int: ...
    @property
    def shuffle_seed(self) -> int | None: ...
    @property
    def expected_rows(self) -> int | None: ...


class _Sums(Protocol):
    @property
    def secure(self) -> bool: ...
    @property
    def weighting(self) -> str: ...
    @property
    def feeds_back(self) -> bool: ...
    @property
    def codec(self) -> str: ...
    @property
    def min_cohort(self) -> int: ...
    @property
    def profile(self) -> str: ...
    @property
    def update_norm(self) -> float: ...


def require_provable(privacy: Privacy, recipe: _Recipe, sums: _Sums) -> None:
    """Refuse a job whose epsilon nobody could prove; what is refused is said in words for the job's author.

    Raises:
        ValueError: the setting, what is expected, what was written, and what to write.
    """
    mode = privacy.mode
    if mode != "record-distributed" and (recipe.batching == "all" or recipe.expected_rows is not None):
        key = "batching = 'all'" if recipe.batching == "all" else "expected_rows"
        raise ValueError(f"training.{key} is for privacy.mode = 'record-distributed'; got {mode!r}; leave it out")
    if mode == "none":
        return
    if sums.weighting != "equal":
        # The noise and the accountant's word are for updates that count alike.
        raise ValueError("aggregation.weighting: in a private job all members count alike; leave it out")
    if sums.feeds_back:
        # What is fed back depends on records of earlier updates, beyond any one update's noise.
        raise ValueError(
            f"aggregation.codec: {sums.codec} feeds back what earlier updates held, which no epsilon counts; expected "
            f"privacy.mode = 'none', got {mode!r}; take codec = 'eden' in its place"
        )
    if mode == "record-local" and recipe.batching != "poisson":
        raise ValueError(
            "training.batching: a private job draws its batches by poisson, which its epsilon is counted for; "
            f"leave batching = {recipe.batching!r} out"
        )
    if recipe.shuffle_seed is not None:
        raise ValueError("training.shuffle_seed: a private job takes no seed for its batches; leave it out")
    if privacy.distributed:
        _require_sum(privacy, sums)
    if mode == "record-distributed":
        _require_one_sum(privacy, recipe)
    if mode == "client-distributed" and sums.min_cohort < LEAST_CLIENT_COHORT:
        raise ValueError(
            f"aggregation.min_cohort: mode client-distributed hides a member among at least {LEAST_CLIENT_COHORT}; "
            f"got {sums.min_cohort}; take mode = 'record-distributed' or 'record-local' for smaller federations"
        )


def _require_sum(privacy: Privacy, sums: _Sums) -> None:
    """What holds the noise's shares together."""
    if not sums.secure:
        raise ValueError(
            f"aggregation.secure: in mode {privacy.mode} an update alone has a share of the noise only; expected "
            "secure = true, got false; leave it out, or take mode = 'record-local'"
        )
    if sums.profile != "default" or sums.update_norm != 1.0:
        key = "profile" if sums.profile != "default" else "update_norm"
        raise ValueError(
            f"aggregation.{key}: in mode {privacy.mode} lanes and range follow from the noise; leave {key} out"
        )
    if privacy.colluders >= sums.min_cohort:
        raise ValueError(
            "privacy.colluders: the noise is that of min_cohort members less the colluders; expected fewer than "
            f"{sums.min_cohort}, got {privacy.colluders}"
        )


def _require_one_sum(privacy: Privacy, recipe: _Recipe) -> None:
    """One clipped sum a round, over a public denominator."""
    if recipe.batching == "epochs" or (recipe.batching == "poisson" and recipe.local_steps != 1):
        steps = f"{recipe.local_steps} local steps" if recipe.batching == "poisson" else "epochs of local steps"
        raise ValueError(
            "training.local_steps: distributed noise is a Gaussian mechanism on one clipped sum a round, and on "
            f"nothing after it; expected batching = 'all', or 'poisson' with local_steps = 1, got {steps}; take more "
            "rounds in place of local steps, or mode = 'record-local'"
        )
    if recipe.expected_rows is None:
        raise ValueError(
            "training.expected_rows: mode record-distributed divides each member's sum by a public number of records; "
            "write about how many records a member has"
        )
    if privacy.delta * recipe.expected_rows >= 1.0:
        raise ValueError(
            f"privacy.delta: such a delta may show a record in full; expected below one over a member's records, "
            f"{1 / recipe.expected_rows:g}, got {privacy.delta:g}"
        )
