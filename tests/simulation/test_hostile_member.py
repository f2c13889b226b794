"""A member that lies to the coordinator behind its own certificate: what becomes of the sum, and of others' bytes?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from lepton_core.ids import Digest, MemberId, digest_of
from lepton_core.secagg.messages import Advert, ConsistencySignature, InputTrailer
from lepton_core.session import RoundReport
from lepton_core.views import JobState
from lepton_protos import convert
from lepton_server.jobs import events as ev
from tests.simulation.federation import Federation
from tests.simulation.test_federation import require_invariants


class Swapping(Federation):
    """The first member names garbage of the right length in a second trailer."""

    #: After which of its messages it does so.
    when: type = ConsistencySignature
    #: Whether the words come beside the trailer.
    inline = False
    forged = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.liar: MemberId = next(iter(self.people))
        self._trailer: InputTrailer | None = None

    def _reported(self, member: MemberId, wire: bytes) -> None:
        report = convert.report_from_bytes(wire)
        super()._reported(member, wire)
        if member != self.liar or not isinstance(report, RoundReport):
            return
        if isinstance(report.message, InputTrailer):
            self._trailer = report.message
        if isinstance(report.message, self.when) and self._trailer is not None:
            garbage = bytes([255]) * self._trailer.payload_bytes
            other = replace(self._trailer, payload_digest=bytes.fromhex(digest_of(garbage)))
            beside = garbage if self.inline else b""
            if not self.inline:
                self.artifacts.put(garbage)
            self.forged += 1
            self._input(ev.Reported(member, RoundReport(report.job, report.round, other, beside)))


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize("when", [InputTrailer, ConsistencySignature, Advert])
def test_a_masked_input_cannot_be_exchanged_once_it_was_accepted(when: type, inline: bool) -> None:
    world = Swapping(seed=11, members=4, rounds=8)
    world.when, world.inline = when, inline
    view = world.run()
    assert world.forged >= 2
    assert view.state is JobState.FINISHED
    assert [len(row.survivors) for row in view.rounds] == [4] * 8
    require_invariants(world, view)


@pytest.mark.parametrize("which", ["the running model", "an earlier one", "an earlier link"])
def test_a_trailer_that_names_what_a_job_has_published_does_not_have_it_deleted(which: str) -> None:
    world = Federation(seed=12, members=4, rounds=3)
    liar = next(iter(world.people))
    tell = world._reported
    named: list[Digest] = []

    def reported(member: MemberId, wire: bytes) -> None:
        report = convert.report_from_bytes(wire)
        if member == liar and isinstance(report, RoundReport) and isinstance(report.message, InputTrailer):
            live = world.coordinator._live[report.job]
            with world.store.transaction() as tx:
                models = tx.models(report.job)
            published = models[-1].digest if which == "the running model" else models[0].digest
            if which == "an earlier link" and len(models) > 1:
                published = models[1].link
            digest = Digest(published)
            named.append(digest)
            # The liar signs what it says; only the kind of artifact is wrong.
            lie = replace(report.message, payload_digest=bytes.fromhex(digest), signature=b"")
            sid = live.phase.protocol.cohort.sid  # type: ignore[union-attr]
            lie = replace(lie, signature=world.people[liar].key.sign(lie.signed_bytes(sid)))
            # As if the file were as long as a masked input, which a small model's can be.
            whole = world.artifacts.get(digest)
            world.artifacts._whole[digest] = whole.ljust(lie.payload_bytes)[: lie.payload_bytes]
            wire = convert.report_to_bytes(RoundReport(report.job, report.round, lie))
            tell(member, wire)
            world.artifacts._whole[digest] = whole
            return
        tell(member, wire)

    world._reported = reported  # type: ignore[method-assign]
    view = world.run()
    assert view.state is JobState.FINISHED
    assert len(named) >= 3
    assert all(world.artifacts.has(digest) for digest in named)
    assert all("owner-0" not in row.survivors for row in view.rounds)
    # A coordinator that begins anew knows of what ended jobs have published.
    again = world._make_coordinator()
    again.recover()
    assert again._published == world.coordinator._published
    assert again._published >= {digest for model in view.models for digest in (model.digest, model.link)}
