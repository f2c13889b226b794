"""Events of a job as the coordinator announces them."""

from __future__ import annotations

import dataclasses

from lepton_core.views import JobEvent

_BLANK = JobEvent(
    sequence=0,
    time=1_700_000_000.0,
    job="hospitals-1",
    kind="",
    round=0,
    model_version=0,
    message="",
    owner="",
    step="",
    cohort=0,
    accuracy=-1.0,
    auc=-1.0,
    epsilon=0.0,
    bytes_up=0,
)


def event(kind: str, sequence: int = 1, **fields: object) -> JobEvent:
    """An event with what a test cares for."""
    return dataclasses.replace(_BLANK, kind=kind, sequence=sequence, **fields)


def numbered(*events: JobEvent) -> list[JobEvent]:
    """The events with sequences from 1 on."""
    return [dataclasses.replace(entry, sequence=number) for number, entry in enumerate(events, start=1)]
