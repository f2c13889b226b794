"""The machine of a round, by the job: secure aggregation, or in the plain if the job and this owner's policy say so."""

from __future__ import annotations

from lepton_client.records import AcceptedJob
from lepton_core.identity import IdentityKey
from lepton_core.job import Job
from lepton_core.plain import client as plain
from lepton_core.ports import Randomness
from lepton_core.secagg import client as secure
from lepton_core.secagg import client_phases
from lepton_core.secagg.client_checks import Admission
from lepton_core.secagg.client_events import Effect, Event
from lepton_core.secagg.terms import Setup

Phase = client_phases.Phase | plain.Phase
Outcome = tuple[Phase, tuple[Effect, ...]]

#: Phases that await the update, that upload it, and that have uploaded it.
Training = client_phases.Training | plain.Training
Uploading = client_phases.Uploading | plain.Uploading
Uploaded = client_phases.Uploaded | plain.Uploaded
#: Phases in which a member has done all that a round asks of it.
Counted = client_phases.Done | plain.Uploaded


def start(job: Job, setup: Setup, identity: IdentityKey, admission: Admission, randomness: Randomness) -> Outcome:
    """Answer an invitation."""
    if job.aggregation.secure:
        return secure.start(setup, identity, admission, randomness)
    return plain.start(setup, identity, admission)


def is_plain(accepted: AcceptedJob | None) -> bool:
    """True if rounds of the job have no secrets that a process could lose: what it does not know it is told again."""
    return accepted is not None and not accepted.job.aggregation.secure


def step(phase: Phase, event: Event) -> Outcome:
    """The next phase, and what the participant must do.

    Raises:
        CodecError, ConflictError: the participant's own misuse.
    """
    return plain.step(phase, event) if isinstance(phase, plain.Phase) else secure.step(phase, event)
