"""Noise in shares, from a seed: what is decoded is charged, and no share of noise is ever drawn for two sums."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from lepton_client import participant
from lepton_client.effects import Effect, SendReport
from lepton_client.feedback import Feedback
from lepton_client.ledger import derive_run
from lepton_compression.update import NoisedPlan
from lepton_compression.update.rotation import Rotation
from lepton_core.ids import MemberId, RoundNumber
from lepton_core.layout import Vector
from lepton_core.privacy.accountant import epsilon_of
from lepton_core.privacy.ledger import ChargeState, spent_events
from lepton_core.ring import Words, pack, unpack
from lepton_core.secagg.messages import InputTrailer
from lepton_core.secagg.terms import derive_codec_seed
from lepton_core.session import RoundReport
from lepton_core.views import JobState
from lepton_pool.terms import derive_noise_plan
from tests.simulation.federation import Federation, Member
from tests.simulation.test_federation import HOSTILE, require_chain, require_ended_well, require_invariants

WORLDS = 5
#: Room for a round or two that are lost.
BUDGET = 12.0

pytestmark = pytest.mark.timeout(240)


@dataclass(frozen=True)
class Encoded:
    """What a member encoded once, before its masks."""

    member: MemberId
    round: RoundNumber
    sid: bytes
    words: Words


@pytest.fixture
def encoded(monkeypatch):
    """Everything that members encode, as they do it."""
    seen: list[Encoded] = []

    class Watched(Feedback):
        def encode(self, job, setup, train, update, rows):
            words = super().encode(job, setup, train, update, rows)
            seen.append(Encoded(self._member, setup.round, train.sid, words))
            return words

    monkeypatch.setattr(participant, "Feedback", Watched)
    return seen


def noise_of(one: Encoded, update: Vector, plan: NoisedPlan) -> npt.NDArray[np.float64]:
    """The share of noise in a member's words, but for less than one level of rounding, shape (padded_length,)."""
    ring = plan.ring
    shift = 2 ** (ring.lane_bits - 1) - ring.max_value // 2
    centred = one.words + pack(np.full(ring.padded_length, shift, dtype=np.int64), ring.lane_bits)
    integers = unpack(centred, ring.lane_bits, ring.padded_length) - shift
    padded = np.zeros(ring.padded_length)
    padded[: len(update)] = update
    rotated = Rotation(derive_codec_seed(one.sid), ring.padded_length).forward(padded)
    return integers - (rotated + ring.scale) * plan.levels_per_unit


def require_charged(world: Federation, encoded: list[Encoded]) -> None:
    """No noise without a charge, no decoded sum without one of each survivor, and never more than the budget."""
    job = world.make_job()
    assert world.job_id is not None
    run = derive_run(world.job_id, job)
    for member, person in world.people.items():
        entries = person.ledger.entries
        charged = {entry.charge.round for entry in entries}
        left = {entry.charge.round for entry in entries if entry.state is ChargeState.SPENT}
        drawn = [one for one in encoded if one.member == member]
        decoded = {
            effect.result.transcript.sid: effect.round for effect in world.decoded if member in effect.result.survivors
        }
        assert {one.round for one in drawn} <= charged
        assert set(decoded.values()) <= left
        assert len(decoded) == len(set(decoded.values())) <= person.ledger.charged_rounds(run)
        assert len(drawn) == len({one.sid for one in drawn}) <= person.ledger.charged_rounds(run)
        assert epsilon_of(spent_events(entries, "patients"), 1e-5) <= world.budget


def require_fresh(world: Federation, encoded: list[Encoded]) -> None:
    """Every member's shares of noise differ, and none is longer than chance makes them."""
    plan, shares = derive_noise_plan(world.make_job()), defaultdict(list)
    for one in encoded:
        # The same update every time, so that nothing else differs but the rounding.
        update = world._own_coordinate(world.people[one.member], 0)
        shares[one.member].append(noise_of(one, update, plan))
    for drawn in shares.values():
        assert all(np.abs(noise).max() < 8 * plan.share_variance**0.5 for noise in drawn)
        for one, other in itertools.combinations(drawn, 2):
            assert np.abs(one - other).max() > 0.1 * plan.share_variance**0.5


def test_a_hostile_world_decodes_no_sum_that_ledgers_do_not_charge_and_draws_noise_anew_for_every_sid(encoded):
    finished = crashes = 0
    for seed in range(WORLDS):
        encoded.clear()
        world = Federation(
            seed=seed, members=4 + seed % 3, rounds=3, mode="record-distributed", budget=BUDGET, faults=HOSTILE
        )
        view = world.run()
        require_ended_well(view)
        require_invariants(world, view)
        require_chain(world, view)
        require_charged(world, encoded)
        finished += view.state is JobState.FINISHED
        crashes += world.coordinator_crashes + world.member_crashes
        require_fresh(world, encoded)
    assert crashes > 0
    assert finished >= WORLDS // 2


def test_a_round_that_is_tried_again_has_another_sid_new_noise_and_another_charge(encoded):
    dead: set[int] = set()

    def dies_once(person: Member, effect: Effect) -> bool:
        """Three of five lose power when their noise is drawn and charged, and before a byte of it has left."""
        leaves = isinstance(effect, SendReport) and isinstance(effect.report, RoundReport)
        if leaves and isinstance(effect.report.message, InputTrailer) and person.index < 3 and person.index not in dead:
            dead.add(person.index)
            return True
        return False

    world = Federation(seed=13, members=5, rounds=2, mode="record-distributed", budget=BUDGET, on_effect=dies_once)
    view = world.run()
    assert view.state is JobState.FINISHED, view.reason
    assert dead == {0, 1, 2}
    assert "aborted" in {entry.state for entry in view.rounds}
    require_charged(world, encoded)
    require_fresh(world, encoded)
    decoded = {effect.result.transcript.sid for effect in world.decoded}
    assert len(decoded) == 2
    for member, person in world.people.items():
        drawn = [one.sid for one in encoded if one.member == member]
        assert len(drawn) == 3
        assert decoded < set(drawn)
        assert person.ledger.charged_rounds(derive_run(world.job_id, world.make_job())) == 3
