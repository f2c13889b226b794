"""Artifacts that no job names are swept away all the time, and no job misses one."""

from __future__ import annotations

import pytest

from lepton_core.ids import Digest
from lepton_core.views import JobState
from lepton_server.jobs import events as ev
from tests.simulation.federation import Faults, Federation, FullAtTimes, VirtualClock
from tests.simulation.test_federation import require_invariants

#: Seconds after which unnamed artifacts go here; a message that was lost is repeated sooner.
OLD_S = 5.0
FAULTS = Faults(lost=0.03, doubled=0.05, late=0.02, coordinator_crash=0.02, member_crash=0.004, disconnect=0.01)


class AgedArtifacts(FullAtTimes):
    """Artifacts that know when they were put or claimed last."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock
        self._claimed: dict[Digest, float] = {}
        self.swept: set[Digest] = set()

    def put(self, data: bytes) -> Digest:
        digest = super().put(data)
        self.claim(digest)
        return digest

    def claim(self, digest: Digest) -> bool:
        self._claimed[digest] = self._clock.now()
        return super().claim(digest)

    def sweep(self, named: frozenset[str], *, older_than_s: float) -> None:
        for digest, claimed in tuple(self._claimed.items()):
            if digest not in named and claimed <= self._clock.now() - older_than_s and self.has(digest):
                self.delete(digest)
                self.swept.add(digest)

    @property
    def there(self) -> set[Digest]:
        return {digest for digest in self._claimed if self.has(digest)}


class SweptFederation(Federation):
    """Sweeps after every input."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.artifacts = AgedArtifacts(self.clock)
        self.coordinator = self._make_coordinator()

    def _input(self, *inputs: ev.Input) -> None:
        super()._input(*inputs)
        self.artifacts.sweep(self.coordinator.named_artifacts(), older_than_s=OLD_S)


@pytest.mark.parametrize(("secure", "codec"), [(True, "float32"), (False, "eden")])
@pytest.mark.parametrize("seed", range(2))
def test_no_job_misses_what_was_swept_and_nothing_but_its_models_outlives_it(
    seed: int, secure: bool, codec: str
) -> None:
    world = SweptFederation(seed=700 + seed, members=4, rounds=4, secure=secure, codec=codec, faults=FAULTS)
    view = world.run()
    assert view.state is JobState.FINISHED
    require_invariants(world, view)
    named = {Digest(digest) for model in view.models for digest in (model.digest, model.link) if digest}
    left = world.artifacts.there - named
    assert left | world.artifacts.swept, "optimizer states are named by no model"
    world.artifacts.sweep(world.coordinator.named_artifacts(), older_than_s=0.0)
    assert world.artifacts.there == named
