"""The exact sampler: every decision is that of rational arithmetic, and samples have the distribution asked for."""

import functools
import math
from fractions import Fraction

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy import stats

from lepton_core.errors import InputError
from lepton_core.privacy import discrete_gaussian as sampler
from lepton_core.privacy.discrete_gaussian import enclose_exp, exact_magnitude, is_below, sample_discrete_gaussian

SCALES = [1, 2, 64, 2**14, 2**25]


class Stream:
    """A repeatable key stream, so that no run of these tests is unlucky."""

    def __init__(self, key):
        self._stream = Cipher(algorithms.AES(key.to_bytes(32, "little")), modes.CTR(bytes(16))).encryptor()

    def __call__(self, count):
        return np.frombuffer(self._stream.update(bytes(8 * count)), dtype=np.uint64)


class Given:
    """These words where so many are asked for, else a key stream's."""

    def __init__(self, *arrays):
        self._given, self._rest = [np.array(words, dtype=np.uint64) for words in arrays], Stream(1)

    def __call__(self, count):
        if self._given and len(self._given[0]) == count:
            return self._given.pop(0)
        return self._rest(count)


UNIT = 2**320


@functools.cache
def rational_exp(x):
    """A rational below exp(-x) and one above, x a Fraction >= 0; they differ by less than 2^-250.

    Neighbouring partial sums of the alternating series enclose its value, in whole units of 2^-320; each of 60 terms
    errs by a unit or two, and each product is rounded outwards.
    """
    pieces = max(1, math.ceil(x))
    total = term = UNIT
    for count in range(1, 61):
        term = -term * x.numerator // (x.denominator * pieces * count)
        total += term
    low = high = UNIT
    for _ in range(pieces):
        low, high = low * (total - 200) // UNIT, -(-high * (total + 200) // UNIT)
    return Fraction(max(low, 0), UNIT), Fraction(high, UNIT)


def rational_below(words, x):
    """u < exp(-x), u the real number of these words, as Fractions say; None if they leave it open."""
    u, width = Fraction(0), Fraction(1)
    for word in words:
        width /= 2**64
        u += int(word) * width
    low, high = rational_exp(x)
    return True if u + width <= low else False if u >= high else None


@pytest.mark.parametrize("number", range(40))
def test_the_enclosure_of_an_exponential_holds_what_rational_arithmetic_finds(number):
    generator = np.random.default_rng(number)
    denominator = int(generator.integers(1, 2 ** generator.integers(1, 60)))
    x = Fraction(int(generator.integers(0, 45 * denominator if number % 2 else denominator + 1)), denominator)
    low, high = rational_exp(x)
    for precision in (64, 128, 170):
        under, over = enclose_exp(x.numerator, x.denominator, precision)
        assert Fraction(under, 2**precision) <= low
        assert high <= Fraction(over, 2**precision)
        assert over - under <= 2


@pytest.mark.parametrize("scale", SCALES)
def test_proposals_are_those_of_rational_arithmetic_even_beside_every_threshold(scale):
    generator = np.random.default_rng(scale)
    words = [int(word) for word in generator.integers(0, 2**64, 500, dtype=np.uint64)]
    for magnitude in (1, 2, 3, *generator.integers(1, 20 * scale + 2, 60).tolist()):
        cut = math.floor(rational_exp(Fraction(magnitude, scale))[0] * 2**64)
        words += [word for word in range(cut - 2, cut + 3) if 0 <= word < 2**64]
    words += [0, 1, 2**43, 2**44, 2**64 - 1, 2**64 - 2]
    no_signs = [2**64 - 1] * -(-len(words) // 64)
    rest = Given(words, no_signs)
    found = sampler._propose(scale, len(words), rest)
    follows = Stream(1)
    place = 0
    for word in words:
        # Wherever 64 bits decide, they decide as Fractions do; elsewhere the words that follow were asked.
        candidate = round(-scale * math.log((word + 0.5) / 2**64))
        exact = None
        for magnitude in range(max(0, candidate - 2), candidate + 3):
            under, beyond = (rational_below([word], Fraction(m, scale)) for m in (magnitude, magnitude + 1))
            if under and beyond is False:
                exact = magnitude
        if exact is None:
            exact = exact_magnitude(word, scale, follows)
        if exact:  # a negative zero is thrown away
            assert found[place] == -exact
            place += 1
    assert place == len(found)


@pytest.mark.parametrize("variance", [1, 2, 9, 1000, 2**20 + 1, 2**48])
def test_acceptances_are_those_of_rational_arithmetic_even_beside_every_threshold(variance):
    scale = sampler._scale_for(variance)
    generator = np.random.default_rng(variance)
    proposed, words = [], []
    for x in sampler._propose(scale, 120, Stream(variance)).tolist():
        chance = Fraction((abs(x) * scale - variance) ** 2, 2 * variance * scale**2)
        cut = math.floor(rational_exp(chance)[0] * 2**64)
        for word in (cut - 2, cut - 1, cut + 1, cut + 2, int(generator.integers(0, 2**64, dtype=np.uint64))):
            if 0 <= word < 2**64:
                proposed.append(x)
                words.append(word)
    accepted = sampler._accept(np.array(proposed), variance, scale, Given(words))
    for x, word, found in zip(proposed, words, accepted, strict=True):
        chance = Fraction((abs(x) * scale - variance) ** 2, 2 * variance * scale**2)
        assert found == rational_below([word], chance)


def test_a_word_that_decides_nothing_is_followed_by_more_until_one_does():
    chance = Fraction(1, 3)
    low, _ = rational_exp(chance)
    first, second = divmod(math.floor(low * 2**128), 2**64)
    for following, answer in ((second - 1, True), (second + 2, False)):
        assert rational_below([first], chance) is None
        assert rational_below([first, following], chance) is answer
        assert is_below(first, 1, 3, Given([following])) is answer
    first, second = divmod(math.floor(rational_exp(Fraction(5, 4))[0] * 2**128), 2**64)
    assert exact_magnitude(first, 4, Given([second - 1])) == 5
    assert exact_magnitude(first, 4, Given([second + 2])) == 4
    assert 352 <= exact_magnitude(0, 4, Given([1])) <= 354  # 4 ln 2^127 to 4 ln 2^128


@pytest.mark.parametrize("variance", [1, 2, 5, 30, 100])
def test_samples_have_the_distribution_asked_for(variance):
    samples = sample_discrete_gaussian(variance, 300_000, Stream(variance))
    reach = math.ceil(4 * math.sqrt(variance))
    support = np.arange(-40 * reach, 40 * reach + 1)
    chances = np.exp(-(support.astype(float) ** 2) / (2 * variance))
    chances /= chances.sum()
    inner = np.abs(support) <= reach
    expected = np.append(chances[inner], 1.0 - chances[inner].sum()) * len(samples)
    counts = np.array([np.count_nonzero(samples == x) for x in support[inner]])
    counts = np.append(counts, len(samples) - counts.sum())
    enough = expected >= 5
    statistic = np.sum((counts[enough] - expected[enough]) ** 2 / expected[enough])
    assert stats.chi2.sf(statistic, np.count_nonzero(enough) - 1) > 1e-3
    assert samples.var() == pytest.approx(np.sum(chances * support**2), rel=0.02)


@pytest.mark.parametrize("deviation", [2**10, 2**17, 2**24])
def test_wide_samples_look_normal(deviation):
    samples = sample_discrete_gaussian(deviation**2, 200_000, Stream(deviation))
    assert stats.kstest(samples / deviation, "norm").pvalue > 1e-3
    assert samples.var() == pytest.approx(deviation**2, rel=0.02)
    assert abs(samples.mean()) < 5 * deviation / math.sqrt(len(samples))


def test_neighbouring_samples_are_not_correlated():
    samples = sample_discrete_gaussian(10**6, 200_000, Stream(7)).astype(float)
    for lag in (1, 2, 1000, 2**15):
        assert abs(np.corrcoef(samples[:-lag], samples[lag:])[0, 1]) < 5 / math.sqrt(len(samples))


def test_samples_come_in_any_number_and_never_twice():
    assert sample_discrete_gaussian(4, 0, Stream(0)).shape == (0,)
    for count in (1, 2, 31, 32_768, 70_001):
        assert sample_discrete_gaussian(4, count, Stream(0)).shape == (count,)
    stream = Stream(0)
    one, other = (sample_discrete_gaussian(2**40, 1000, stream) for _ in range(2))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("variance", [0, -1, 2**50 + 1, 1.5, math.nan])
def test_a_noise_that_cannot_be_drawn_is_refused(variance):
    with pytest.raises(InputError, match="not a noise"):
        sample_discrete_gaussian(variance, 1, Stream(0))


def test_a_negative_number_of_samples_is_refused():
    with pytest.raises(InputError, match="number of samples"):
        sample_discrete_gaussian(1, -1, Stream(0))
