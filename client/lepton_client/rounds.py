"""Which rounds of a job a participant is in: one that runs, and one after it whose keys are made."""

from __future__ import annotations

from collections.abc import Iterator

from lepton_client.effects import SendReport
from lepton_client.phases import CurrentRound
from lepton_core.ids import JobId, RoundNumber


class Rounds:
    """At most two rounds a job, oldest first; their secrets die with the process."""

    def __init__(self) -> None:
        self._of: dict[JobId, tuple[CurrentRound, ...]] = {}

    def __iter__(self) -> Iterator[tuple[JobId, CurrentRound]]:
        return iter([(job_id, one) for job_id, rounds in self._of.items() for one in rounds])

    def newest(self, job_id: JobId) -> int:
        """The highest number; 0 for none."""
        rounds = self._of.get(job_id, ())
        return rounds[-1].setup.round if rounds else 0

    def find(self, job_id: JobId, number: RoundNumber) -> CurrentRound | None:
        """The round of this number, if this process knows it."""
        return next((one for one in self._of.get(job_id, ()) if one.setup.round == number), None)

    def add(self, job_id: JobId, begun: CurrentRound) -> tuple[CurrentRound, ...]:
        """A newer round; what is dropped for it: all but the oldest that still runs, or the last one that is over."""
        rounds = self._of.get(job_id, ())
        kept = [one for one in rounds if not one.over][:1] or list(rounds[-1:])
        self._of[job_id] = (*kept, begun)
        return tuple(one for one in rounds if one not in kept)

    def before(self, job_id: JobId, number: RoundNumber) -> CurrentRound | None:
        """The older round that still runs beside this one."""
        return next((one for one in self._of.get(job_id, ()) if one.setup.round < number and not one.over), None)

    def drop_before(self, job_id: JobId, number: RoundNumber) -> tuple[CurrentRound, ...]:
        """Drop the older rounds."""
        rounds = self._of.get(job_id, ())
        self._of[job_id] = tuple(one for one in rounds if one.setup.round >= number)
        return tuple(one for one in rounds if one.setup.round < number)

    def drop(self, job_id: JobId) -> tuple[CurrentRound, ...]:
        """Drop all rounds of a job."""
        return self._of.pop(job_id, ())

    def take_riding(self, job_id: JobId) -> tuple[SendReport, ...]:
        """What has waited for another report of this owner; given once."""
        taken: tuple[SendReport, ...] = ()
        for one in self._of.get(job_id, ()):
            taken, one.riding = (*taken, *one.riding), ()
        return taken
