"""How a job's updates are bounded, encoded and added up: as a researcher writes it, and as it is hashed."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from lepton_core.settings import Fraction, Positive, Settings

#: Codecs that add what a round has left out to the next update.
_FEEDING_BACK = ("topk", "sign")


class AggregationKeys(Settings):
    """What a job file and a resolved job say alike."""

    #: Fewest members whose sum may ever be revealed.
    min_cohort: int = Field(default=5, ge=3, le=100_000)
    #: Most members of a round.
    max_cohort: int = Field(default=64, ge=3, le=100_000)
    #: False: no masks; the coordinator sees every member's update. Every owner's policy must allow it by name.
    secure: bool = True
    #: Ring profile: exact 21 bits a value, default 16, lean 12, tiny 8.
    profile: Literal["exact", "default", "lean", "tiny"] = "default"
    #: Share of coordinates all members train and send in a round, drawn from the round's seed.
    kept_fraction: Fraction = 1.0
    #: With `kept_fraction` below 1: what is drawn, single coordinates or whole rows (output channels) of each tensor.
    mask: Literal["coordinates", "rows"] = "coordinates"
    #: With `secure = false`: how updates are sent. A scale of each member's own cannot be summed under masks.
    codec: Literal["float32", "float16", "eden", "topk", "sign"] = "float32"
    #: With `codec = "eden"`: bits a value, on average; 4 if left out.
    bits: float | None = Field(default=None, ge=0.05, le=8.0)
    #: With `codec = "topk"`: share of the values that a member sends in a round; 0.01 if left out.
    fraction: Fraction | None = None
    #: L2 norm a member's whole update is clipped to before encoding (the codec scales it by sqrt(kept_fraction)).
    update_norm: Positive = 1.0
    #: How much a member counts in the mean: all alike, or by its rows (mode `none` only), which only the sum shows.
    weighting: Literal["equal", "rows"] = "equal"
    #: With `rows`: public number of rows from which on a member counts in full.
    most_rows: int | None = Field(default=None, ge=1, le=2**31 - 1)
    #: Share of members assumed to collude with the coordinator; every owner's policy sets its own floor.
    corruption: float = Field(default=0.1, ge=0.0, lt=0.5)
    #: Only with `secure = false`: models go down `exact`, in float32, or as 8-bit differences in half precision.
    downlink: Literal["exact", "delta"] = "exact"
    #: Longest a step of a round waits for members, in seconds.
    step_deadline_s: float = Field(default=30.0, gt=0.0, le=86_400.0)

    @property
    def feeds_back(self) -> bool:
        """True if members keep what a round leaves out, and add it to their next update."""
        return self.codec in _FEEDING_BACK

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_cohort < self.min_cohort:
            raise ValueError("max_cohort is below min_cohort")
        if not self.secure and (self.profile != "default" or self.kept_fraction < 1.0):
            key = "profile" if self.profile != "default" else "kept_fraction"
            raise ValueError(f"{key} has no meaning with secure = false, where nothing is packed in lanes")
        self._check_feedback()
        if self.secure and self.codec != "float32":
            raise ValueError(
                f"codec: {self.codec} is not ring-summable, as every member has a scale or rounding of its own; with "
                "secure = true take profile, bytes_per_parameter or error"
            )
        if self.bits is not None and self.codec != "eden":
            raise ValueError(f"bits has no meaning with codec = {self.codec!r}; leave it out")
        if self.fraction is not None and self.codec != "topk":
            raise ValueError(f"fraction has no meaning with codec = {self.codec!r}; leave it out")
        if self.secure and self.downlink != "exact":
            raise ValueError("downlink has no meaning with secure = true, where members compute each model themselves")
        if self.mask != "coordinates" and self.kept_fraction == 1.0:
            raise ValueError("mask has no meaning with kept_fraction = 1.0; leave it out")
        if (self.weighting == "rows") != (self.most_rows is not None):
            told = "weighting = 'rows' needs it" if self.most_rows is None else "weighting = 'equal' has no use for it"
            raise ValueError(f"most_rows: {told}")
        return self

    def _check_feedback(self) -> None:
        """Error feedback needs updates that are seen one by one, and every member in every round."""
        if not self.feeds_back:
            return
        if self.secure:
            raise ValueError(
                f"codec: {self.codec} is not ring-summable, and feeds back what it leaves out; expected "
                "secure = false, got true; write that, or take profile, bytes_per_parameter or error in place of codec"
            )
        if self.min_cohort != self.max_cohort:
            raise ValueError(
                f"max_cohort: codec = {self.codec!r} feeds back what a round leaves out, so every member must be in "
                "every round; expected min_cohort and max_cohort equal to the number of members, "
                f"got {self.min_cohort} and {self.max_cohort}; set both to it, or take codec = 'eden'"
            )


class Aggregation(AggregationKeys):
    """How updates are bounded, compressed and securely summed."""


class AggregationFile(AggregationKeys):
    """How updates are bounded, compressed and summed, as written: a target is resolved at submission."""

    #: In place of `kept_fraction`, and of `profile` unless given: most payload bytes a member sends a parameter.
    bytes_per_parameter: Positive | None = None
    #: In place of both: the largest expected error of a full cohort's mean, over the squared norm of an update.
    error: Positive | None = None

    @property
    def has_target(self) -> bool:
        """True if profile and kept fraction are to be derived."""
        return self.bytes_per_parameter is not None or self.error is not None

    @model_validator(mode="after")
    def _check_targets(self) -> Self:
        given = [key for key in ("bytes_per_parameter", "error") if getattr(self, key) is not None]
        settled = ("kept_fraction", "mask", *(("profile",) if self.error is not None else ()))
        given += [key for key in settled if key in self.model_fields_set]
        if self.has_target and len(given) > 1:
            raise ValueError(f"{given[0]} says it all; leave {', '.join(given[1:])} out")
        if self.has_target and not self.secure:
            raise ValueError(f"{given[0]} has no meaning with secure = false")
        return self
