"""The ends of jobs, told again to members that may have missed them."""

from __future__ import annotations

from collections import deque

from lepton_core.ids import JobId, MemberId
from lepton_core.session import JobClosed
from lepton_core.views import JobState, JobView
from lepton_server.jobs import events as ev
from lepton_server.store.port import Store, Transaction

#: Ended jobs whose end is told again to a member that reconnects; an owner that missed an end holds budget back for it.
ENDS_KEPT = 1_000


class Ends:
    """The newest ended jobs, with the owners that had taken part."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: deque[tuple[JobClosed, frozenset[str]]] = deque(maxlen=ENDS_KEPT)

    def recover(self, tx: Transaction) -> None:
        """Take in what ended before this process began."""
        ended = tx.jobs([JobState.FINISHED, JobState.FAILED, JobState.ABORTED])
        for record in sorted(ended, key=lambda one: one.view.ended)[-ENDS_KEPT:]:
            self.keep(record.view)

    def keep(self, view: JobView) -> None:
        """A job has ended."""
        willing = frozenset(match.owner for match in view.owners if match.state == "can")
        self._kept.append((JobClosed(JobId(view.job), view.state.value, view.reason), willing))

    def missed_by(self, member: MemberId) -> tuple[ev.Effect, ...]:
        """Ends the member may have missed; one it knows already changes nothing."""
        with self._store.transaction() as tx:
            party = tx.party_of_member(member)
        if party is None:
            return ()
        return tuple(ev.Tell(member, end) for end, owners in self._kept if party.name in owners)
