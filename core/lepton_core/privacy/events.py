"""Privacy events: what was done to records, as data; `accountant` says what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from lepton_core.errors import InputError

#: Whole numbers up to here are exact as doubles.
_LARGEST = 2**53


@dataclass(frozen=True)
class SampledGaussian:
    """`steps` times: Poisson-sample records, sum their clipped vectors, add Gaussian noise to every coordinate.

    Neighbours differ by one record, added or removed. One record's vector has L2 norm at most C; the noise has
    standard deviation `noise_multiplier` * C. Where subjects are sampled, read subject for record.

    Raises:
        InputError: a number outside its range.
    """

    #: Standard deviation of the noise over the clipping norm; > 0.
    noise_multiplier: float
    #: Probability q with which a record is in a step's sum; 0 < q <= 1.
    sampling_rate: float
    #: Number of steps with fresh noise and a fresh sample; >= 1.
    steps: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.noise_multiplier) and self.noise_multiplier > 0):
            raise _out_of_range("noise_multiplier", "a finite number above 0", self.noise_multiplier)
        if not 0 < self.sampling_rate <= 1:
            raise _out_of_range("sampling_rate", "above 0, at most 1", self.sampling_rate)
        if type(self.steps) is not int or self.steps < 1:
            raise _out_of_range("steps", "a whole number of at least 1", self.steps)


@dataclass(frozen=True)
class SummedDiscreteGaussian:
    """`steps` times: the sum of all records' clipped vectors as integers, and of each member's share of integer noise.

    Each record is in a sum with probability `sampling_rate`. Neighbours differ by one unit, added or removed: a record,
    or where a member's whole vector is clipped, a member. Whoever sees the sums sees `contributors` shares of noise at
    the least; a coordinator with `colluders` members of its own knows theirs.

    Raises:
        InputError: a number outside its range.
    """

    #: Largest L2 distance of neighbours' sums, in integer units, after rotation, padding and rounding; > 0.
    sensitivity: float
    #: Parameter v of each share, a discrete Gaussian at every coordinate; >= 1.
    share_variance: int
    #: m, the fewest members whose sum is ever revealed; above `colluders`.
    contributors: int
    #: c, members that may tell the coordinator their shares; >= 0.
    colluders: int
    #: Coordinates of a sum, padding included; >= 1.
    dimension: int
    #: Number of sums with fresh noise and fresh samples; >= 1.
    steps: int
    #: Probability q with which a record is in a sum; 0 < q <= 1.
    sampling_rate: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.sampling_rate <= 1:
            raise _out_of_range("sampling_rate", "above 0, at most 1", self.sampling_rate)
        if not (math.isfinite(self.sensitivity) and self.sensitivity > 0):
            raise _out_of_range("sensitivity", "a finite number above 0", self.sensitivity)
        for name, least in (("share_variance", 1), ("dimension", 1), ("steps", 1), ("colluders", 0)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= _LARGEST:
                raise _out_of_range(name, f"a whole number from {least} to 2^53", value)
        if type(self.contributors) is not int or not self.colluders < self.contributors <= _LARGEST:
            raise _out_of_range("contributors", f"a whole number above {self.colluders} colluders", self.contributors)


#: What is done to records, and charged.
Event: TypeAlias = SampledGaussian | SummedDiscreteGaussian


@dataclass(frozen=True)
class Replaced:
    """The event, for neighbours of which one vector is replaced by any other within its bound, instead of removed.

    Nothing is charged so; it is how a charge for subjects counts for a record (`units`).
    """

    event: Event


#: Everything the accountant knows.
Counted: TypeAlias = Event | Replaced

_KINDS: Mapping[str, type[SampledGaussian | SummedDiscreteGaussian]] = {
    "sampled-gaussian": SampledGaussian,
    "summed-discrete-gaussian": SummedDiscreteGaussian,
}
_REALS = frozenset({"noise_multiplier", "sampling_rate", "sensitivity"})


def event_document(event: Event) -> dict[str, str | int | float]:
    """The event as plain JSON values, for hashing and storing; `parse_event` reads it back."""
    kind = next(name for name, known in _KINDS.items() if type(event) is known)
    numbers = {field.name: getattr(event, field.name) for field in fields(event)}
    return {"kind": kind} | {name: float(value) if name in _REALS else value for name, value in numbers.items()}


def parse_event(document: Mapping[str, object]) -> Event:
    """The event that `event_document` described.

    Raises:
        InputError: an unknown kind, another set of keys, or a value out of range.
    """
    kind = document.get("kind")
    known = _KINDS.get(kind) if isinstance(kind, str) else None
    if known is None:
        raise InputError("an event of unknown kind", where="event.kind", expected=" or ".join(_KINDS), got=repr(kind))
    names = [field.name for field in fields(known)]
    if set(document) != {"kind", *names}:
        raise InputError("an event with other keys", where="event", got=", ".join(sorted(document)))
    numbers: dict[str, Any] = {name: document[name] for name in names}
    for name, value in numbers.items():
        if type(value) is not (float if name in _REALS else int):
            expected = "float" if name in _REALS else "int"
            raise InputError(
                "an event with a value of another type", where=f"event.{name}", expected=expected, got=repr(value)
            )
    return known(**numbers)


def _out_of_range(name: str, expected: str, got: object) -> InputError:
    return InputError("a privacy event that cannot be", where=f"event.{name}", expected=expected, got=repr(got))
