"""Shamir's scheme: fixed coefficients, every subset, every refusal."""

import itertools

import pytest

from lepton_core.errors import InputError
from lepton_core.secagg.shamir import (
    PRIME,
    draw_element,
    encode_element,
    parse_element,
    reconstruct,
    split,
    weights_at_zero,
)


class Scripted:
    """Randomness that gives the listed 32-byte numbers in order."""

    def __init__(self, *numbers):
        self._numbers = list(numbers)

    def token(self, length):
        return self._numbers.pop(0).to_bytes(length, "big")


def test_the_modulus_is_the_largest_prime_below_2_to_the_256():
    assert all(pow(base, PRIME - 1, PRIME) == 1 for base in (2, 3, 5, 7, 11, 13))
    # No larger candidate is prime: each fails Fermat's test to base 2.
    assert all(pow(2, number - 1, number) != 1 for number in range(PRIME + 2, 2**256, 2))


def test_fixed_coefficients_give_the_polynomial_by_hand():
    # f(x) = 5 + 3x + 2x^2
    assert split(5, 3, (1, 2, 3, 4), Scripted(3, 2)) == (10, 19, 32, 49)
    # f(x) = (p-1) + (p-2)x, that is -1 - 2x
    assert split(PRIME - 1, 2, (1, 2), Scripted(PRIME - 2)) == (PRIME - 3, PRIME - 5)


def test_weights_of_one_two_three_are_three_minus_three_one():
    assert weights_at_zero((1, 2, 3)) == (3, PRIME - 3, 1)


@pytest.mark.parametrize(("holders", "threshold"), [(3, 3), (5, 4), (6, 3), (7, 1)])
def test_every_subset_of_threshold_shares_rebuilds_the_secret(holders, threshold):
    secret = PRIME - 12345
    xs = tuple(range(1, holders + 1))
    shares = split(secret, threshold, xs, Scripted(*range(PRIME - threshold, PRIME)))
    for subset in itertools.permutations(range(holders), threshold):
        assert reconstruct([shares[i] for i in subset], [xs[i] for i in subset], threshold) == secret


def test_every_eleven_of_sixteen_shares_rebuild_the_secret_and_ten_do_not():
    """The golden rounds of sixteen have threshold 11; coefficients are fixed: c_j = p - j."""
    secret = PRIME // 3
    xs = tuple(range(1, 17))
    shares = split(secret, 11, xs, Scripted(*(PRIME - j for j in range(1, 11))))
    assert shares[0] == (secret - sum(range(1, 11))) % PRIME
    assert shares[1] == (secret - sum(j * 2**j for j in range(1, 11))) % PRIME
    for subset in itertools.combinations(range(16), 11):
        assert reconstruct([shares[i] for i in subset], [xs[i] for i in subset], 11) == secret
    for subset in itertools.combinations(range(16), 10):
        assert reconstruct([shares[i] for i in subset], [xs[i] for i in subset], 10) != secret


def test_fewer_shares_than_the_threshold_fit_every_secret():
    shares = split(42, 3, (1, 2, 3), Scripted(77, 99))
    # Whatever the secret, some third share completes the two known ones: they rule nothing out.
    weights = weights_at_zero((1, 2, 3))
    for other_secret in (0, 1, 42, PRIME - 1):
        known = weights[0] * shares[0] + weights[1] * shares[1]
        third = (other_secret - known) * pow(weights[2], -1, PRIME) % PRIME
        assert reconstruct([*shares[:2], third], (1, 2, 3), 3) == other_secret


def test_elements_are_drawn_by_rejection():
    assert draw_element(Scripted(PRIME, 2**256 - 1, PRIME - 1)) == PRIME - 1


def test_elements_round_trip_and_larger_numbers_are_refused():
    assert parse_element(encode_element(PRIME - 1)) == PRIME - 1
    for data in (PRIME.to_bytes(32, "big"), b"\xff" * 32, bytes(31), bytes(33), b""):
        with pytest.raises(InputError):
            parse_element(data)


@pytest.mark.parametrize("xs", [(0, 1, 2), (1, 1, 2), (1, 2, PRIME), (-1, 1, 2), (1, 2, PRIME + 1)])
def test_points_that_are_zero_repeated_or_out_of_the_field_are_refused(xs):
    with pytest.raises(InputError):
        split(1, 2, xs, Scripted(3))
    with pytest.raises(InputError):
        reconstruct((1, 2, 3), xs, 3)


def test_reconstruction_takes_exactly_the_threshold():
    shares = split(9, 2, (1, 2, 3), Scripted(4))
    for count in (1, 3):
        with pytest.raises(InputError, match="exactly"):
            reconstruct(shares[:count], (1, 2, 3)[:count], 2)


@pytest.mark.parametrize(("secret", "threshold"), [(PRIME, 2), (-1, 2), (1, 0), (1, 4)])
def test_secrets_and_thresholds_out_of_range_are_refused(secret, threshold):
    with pytest.raises(InputError):
        split(secret, threshold, (1, 2, 3), Scripted(1, 1, 1))
