"""Privacy events: what was done to records, as data; `accountant` says what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from lepton_core.errors import InputError


@dataclass(frozen=True)
class SampledGaussian:
    """`steps` times: Poisson-sample records, sum their clipped vectors, add Gaussian noise to every coordinate.

    Neighbours differ by one record, added or removed. One record's vector has L2 norm at most C; the noise has
    standard deviation `noise_multiplier` * C.

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


#: Everything the accountant knows. Integer mechanisms join this union as further classes.
Event: TypeAlias = SampledGaussian

_KIND = "sampled-gaussian"


def event_document(event: Event) -> dict[str, str | int | float]:
    """The event as plain JSON values, for hashing and storing; `parse_event` reads it back."""
    return {
        "kind": _KIND,
        "noise_multiplier": float(event.noise_multiplier),
        "sampling_rate": float(event.sampling_rate),
        "steps": event.steps,
    }


def parse_event(document: Mapping[str, object]) -> Event:
    """The event that `event_document` described.

    Raises:
        InputError: an unknown kind, another set of keys, or a value out of range.
    """
    if document.get("kind") != _KIND:
        raise InputError("an event of unknown kind", where="event.kind", expected=_KIND, got=repr(document.get("kind")))
    if set(document) != {"kind", "noise_multiplier", "sampling_rate", "steps"}:
        raise InputError("an event with other keys", where="event", got=", ".join(sorted(document)))
    noise_multiplier, sampling_rate, steps = (document[key] for key in ("noise_multiplier", "sampling_rate", "steps"))
    if not isinstance(noise_multiplier, float) or not isinstance(sampling_rate, float) or not isinstance(steps, int):
        raise InputError("an event with values of other types", where="event", expected="float, float, int")
    return SampledGaussian(noise_multiplier=noise_multiplier, sampling_rate=sampling_rate, steps=steps)


def _out_of_range(name: str, expected: str, got: object) -> InputError:
    return InputError("a privacy event that cannot be", where=f"event.{name}", expected=expected, got=repr(got))
