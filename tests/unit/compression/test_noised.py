"""Is the sum of noised integers the sum asked for, with the noise and the sensitivity that the plan says?"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from lepton_compression.update import Noise, NoisedPlan, SecretKeystream, decode_noised, derive_noised_plan
from lepton_compression.update.noised import Doubles, encode_noised, round_to_integers
from lepton_core.errors import CodecError, FaultError
from lepton_core.ring import pack

SEED = bytes(range(32))


def plan_of(
    length: int = 650,
    *,
    bound: float = 130.0,
    members: int = 10,
    noise: Noise | None = None,
    kept: float = 1.0,
    unit: float = 1.0,
    whole: bool = False,
) -> NoisedPlan:
    return derive_noised_plan(
        model_length=length,
        kept_fraction=kept,
        unit_norm=unit,
        largest_norm=bound * unit,
        members_max=members,
        noise=noise if noise is not None else Noise(27.2, members, 0),
        whole=whole,
    )


def stream(number: int) -> SecretKeystream:
    return SecretKeystream(bytes([number % 256, number // 256]) * 16)


def vectors_of(plan: NoisedPlan, members: int, norm: float) -> list[Doubles]:
    random = np.random.default_rng(members)
    drawn = [random.standard_normal(plan.ring.model_length) for _ in range(members)]
    return [vector * norm / float(np.linalg.norm(vector)) for vector in drawn]


@pytest.mark.parametrize("length", [1, 15, 650, 4113])
@pytest.mark.parametrize("kept", [1.0, 0.5])
def test_without_noise_the_sum_is_that_of_the_vectors_up_to_rounding(length: int, kept: float) -> None:
    plan = plan_of(length, kept=kept)
    vectors = vectors_of(plan, 7, norm=60.0)
    integers = [round_to_integers(vector, plan, SEED, stream(number)) for number, vector in enumerate(vectors)]
    words = np.sum([pack(one, plan.ring.lane_bits) for one in integers], axis=0, dtype=np.uint64)
    mean, residual = decode_noised(words, 7, plan, SEED, self_test=True)
    expected = np.mean(vectors, axis=0)
    sent = mean != 0
    assert np.count_nonzero(sent) <= plan.ring.kept_length
    share = plan.ring.kept_length / length
    error = np.linalg.norm(mean[sent] * share - expected[sent]) * plan.levels_per_unit
    # Rounding errs by less than a level at each value; the mean of seven by a standard deviation of half of it at most.
    assert error <= math.sqrt(plan.ring.padded_length)
    assert residual < 1e-9


def test_the_noise_of_a_sum_has_the_variance_of_its_members_shares() -> None:
    plan = plan_of(4096, noise=Noise(5.0, 8, 2))
    # Eight members, of whom two may be colluders: the six others' noise alone keeps the promise.
    vectors = [np.zeros(4096) for _ in range(8)]
    words = [
        encode_noised(vector, plan, SEED, rounding=stream(2 * number), noise=stream(2 * number + 1))
        for number, vector in enumerate(vectors)
    ]
    mean, _ = decode_noised(np.sum(words, axis=0, dtype=np.uint64), 8, plan, SEED)
    found = float(np.var(mean * 8 * plan.levels_per_unit))
    # The variance of 4,096 values errs by 2.2 % (one standard deviation).
    assert found == pytest.approx(8 * plan.share_variance, rel=0.12)
    assert 6 * plan.share_variance >= (5.0 * plan.sensitivity) ** 2


@pytest.mark.parametrize("length", [16, 650, 5000])
def test_one_unit_more_moves_the_integers_by_no_more_than_the_sensitivity(length: int) -> None:
    plan = plan_of(length, bound=20.0)
    random = np.random.default_rng(length)
    for number, norm in enumerate((0.0, 5.0, 19.5, 20.0, 400.0)):
        vector = random.standard_normal(length)
        vector *= norm / np.linalg.norm(vector)
        unit = random.standard_normal(length) if number % 2 else np.eye(1, length, number)[0]
        unit /= np.linalg.norm(unit)
        before = round_to_integers(vector, plan, SEED, stream(number))
        after = round_to_integers(vector + unit, plan, SEED, stream(number))
        assert np.linalg.norm(after - before) <= plan.sensitivity


def test_a_vector_beyond_the_bound_is_brought_onto_it() -> None:
    plan = plan_of(64, bound=3.0)
    vector = np.full(64, 100.0)
    words = pack(round_to_integers(vector, plan, SEED, stream(1)), plan.ring.lane_bits)
    mean, _ = decode_noised(words, 1, plan, SEED)
    assert np.linalg.norm(mean) == pytest.approx(3.0, rel=0.02)


@pytest.mark.parametrize(
    ("length", "bound", "members", "noise", "bits"),
    [
        (16, 1.0, 3, Noise(0.3, 3, 0), 12),
        (650, 1.0, 10, Noise(0.3, 10, 0), 16),
        (650, 130.0, 10, Noise(43.0, 10, 0), 21),
        (2**20, 1000.0, 10, Noise(19.0, 10, 0), 32),
    ],
)
def test_the_narrowest_lane_is_taken_whose_rounding_costs_at_most_five_percent(
    length: int, bound: float, members: int, noise: Noise, bits: int
) -> None:
    plan = plan_of(length, bound=bound, members=members, noise=noise)
    assert plan.ring.lane_bits == bits
    assert plan.inflation <= 1.05 * (1 + 2**-10)
    # All members' signal and eight standard deviations of all their noise on both sides fit.
    reach = members * plan.ring.max_value + 16 * math.sqrt(members * plan.share_variance)
    assert reach < 2**bits


def test_a_share_has_the_noise_of_those_who_are_surely_there() -> None:
    for noise in (Noise(10.0, 10, 0), Noise(10.0, 9, 2), Noise(10.0, 3, 2)):
        plan = plan_of(noise=noise)
        assert plan.share_variance >= (10.0 * plan.sensitivity) ** 2 / noise.honest
        assert plan.share_variance <= (10.0 * plan.sensitivity) ** 2 / noise.honest + 1


@pytest.mark.parametrize("kept", [1.0, 0.5])
def test_the_error_told_is_that_of_the_mean(kept: float) -> None:
    plan = plan_of(4096, noise=Noise(20.0, 6, 0), kept=kept)
    words = [
        encode_noised(np.zeros(4096), plan, SEED, rounding=stream(2 * number), noise=stream(2 * number + 1))
        for number in range(6)
    ]
    mean, _ = decode_noised(np.sum(words, axis=0, dtype=np.uint64), 6, plan, SEED)
    assert float(np.sum(mean.astype(np.float64) ** 2)) / 130.0**2 == pytest.approx(plan.expected_error, rel=0.12)


def test_noise_that_no_lane_holds_is_refused() -> None:
    with pytest.raises(CodecError, match="no lane is wide enough"):
        plan_of(2**22, noise=Noise(1e5, 10, 0))


@pytest.mark.parametrize("noise", [Noise(1.0, 10, 10), Noise(1.0, 11, 0), Noise(0.0, 10, 0), Noise(1.0, 10, -1)])
def test_noise_that_keeps_no_promise_is_refused(noise: Noise) -> None:
    with pytest.raises(CodecError, match="no encoding can be derived"):
        plan_of(noise=noise)


def test_bounds_that_make_no_sense_are_refused() -> None:
    for bound in (0.5, math.inf, math.nan, 2.0**41):
        with pytest.raises(CodecError, match="no encoding can be derived"):
            plan_of(bound=bound)


def test_a_vector_that_is_none_is_refused_without_telling_it() -> None:
    plan = plan_of(16)
    for vector in (np.full(16, np.nan), np.zeros(17), np.zeros(16, dtype=np.float32)):
        with pytest.raises(CodecError) as refused:
            encode_noised(vector, plan, SEED, rounding=stream(1), noise=stream(2))
        assert "nan" not in str(refused.value)
    with pytest.raises(CodecError, match="codec seed"):
        encode_noised(np.zeros(16), plan, b"short", rounding=stream(1), noise=stream(2))


def test_a_sum_of_another_length_or_of_more_members_than_planned_is_refused() -> None:
    plan = plan_of(16)
    with pytest.raises(CodecError, match="not a sum of this plan's words"):
        decode_noised(np.zeros(5, dtype=np.uint64), 3, plan, SEED)
    words = encode_noised(np.zeros(16), plan, SEED, rounding=stream(1), noise=stream(2))
    for members in (0, 11):
        with pytest.raises(CodecError, match="no such sum"):
            decode_noised(words, members, plan, SEED)


def test_a_lane_that_runs_over_disturbs_its_neighbours_and_nothing_is_refused() -> None:
    # What a word shows is a function of the exact sums: an overflow, once in 10^15, must not end a job.
    plan = plan_of(16)
    words = encode_noised(np.zeros(16), plan, SEED, rounding=stream(1), noise=stream(2))
    mean, _ = decode_noised(words + np.uint64(2**63), 1, plan, SEED)
    assert np.isfinite(mean).all()


def test_what_secret_streams_hold_is_not_shown() -> None:
    assert repr(stream(3)) == "SecretKeystream(<secret>)"


def test_what_a_whole_vector_is_rounded_to_is_no_longer_than_what_is_charged() -> None:
    for length in (1, 16, 650, 5000):
        plan = plan_of(length, bound=1.0, members=100, noise=Noise(2.0, 100, 0), whole=True)
        assert plan.largest_square is not None
        assert plan.sensitivity >= math.sqrt(plan.largest_square)
        assert plan.share_variance * 100 >= (2.0 * plan.sensitivity) ** 2
        for number, vector in enumerate(vectors_of(plan, 20, norm=1.0)):
            integers = round_to_integers(vector, plan, SEED, stream(number)) - plan.ring.max_value // 2
            assert int(np.sum(integers**2)) <= plan.largest_square
        # The neighbour of any vector is none at all, which is zero whatever the chance.
        nothing = round_to_integers(np.zeros(length), plan, SEED, stream(1))
        assert set(nothing.tolist()) == {plan.ring.max_value // 2}


def test_rounding_of_a_whole_vector_is_repeated_until_it_is_short_enough() -> None:
    plan = plan_of(650, bound=1.0, members=100, noise=Noise(2.0, 100, 0), whole=True)
    (vector,) = vectors_of(plan, 1, norm=1.0)
    half = plan.ring.max_value // 2
    squares = [int(np.sum((round_to_integers(vector, plan, SEED, stream(n)) - half) ** 2)) for n in range(41)]
    median = sorted(squares)[20]
    # As is usual: three standard deviations of the squares are nowhere near the limit.
    assert plan.largest_square is not None
    assert max(squares) + 3 * float(np.std(squares)) < plan.largest_square
    strict = dataclasses.replace(plan, largest_square=median)
    drawn = []

    def counted(count: int) -> np.ndarray:
        drawn.append(count)
        return source(count)

    for number in range(41):
        drawn.clear()
        source = stream(number)
        integers = round_to_integers(vector, strict, SEED, counted)
        assert int(np.sum((integers - half) ** 2)) <= median
        assert (len(drawn) > 1) == (squares[number] > median)
    with pytest.raises(FaultError, match="rounding does not end"):
        round_to_integers(vector, dataclasses.replace(plan, largest_square=1), SEED, stream(0))


def test_whole_vectors_need_narrower_lanes_than_parts_of_them() -> None:
    for length, multiplier, bits, fewer in ((10_000, 2.0, 21, 16), (10**6, 10.0, 32, 21)):
        of_part, of_whole = (
            plan_of(length, bound=1.0, members=100, noise=Noise(multiplier, 100, 0), whole=whole)
            for whole in (False, True)
        )
        assert (of_part.ring.lane_bits, of_whole.ring.lane_bits) == (bits, fewer)
        assert of_part.expected_error == pytest.approx(of_whole.expected_error, rel=0.02)


def test_a_whole_vector_that_is_longer_than_its_unit_is_refused() -> None:
    with pytest.raises(CodecError, match="no encoding can be derived"):
        plan_of(bound=2.0, whole=True)
