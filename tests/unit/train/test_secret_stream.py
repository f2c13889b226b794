"""Noise and samples are what they claim to be, fresh each time, and out of reach of any seed."""

import numpy as np
import pytest
import torch
from scipy import stats

from lepton_client.train import noise
from lepton_client.train.noise import SecretStream
from lepton_compression.native import load_kernels

#: Chance that a right generator fails one of these tests.
FALSE_ALARM = 1e-6


@pytest.fixture(params=["compiled", "in torch"])
def loops(request, monkeypatch):
    """Noise with the compiled loop and without, as on a machine where none was built."""
    if request.param == "in torch":
        monkeypatch.setattr(noise, "load_kernels", lambda: None)
    elif load_kernels() is None:
        pytest.skip("the installation had no C compiler")


@pytest.mark.usefixtures("loops")
def test_gaussian_noise_fits_the_normal_distribution_in_body_and_tails():
    values = SecretStream().gaussian(200_000, 3.0) / 3.0
    assert stats.kstest(values, "norm").pvalue > FALSE_ALARM
    for bound in (1.0, 2.0, 3.0, 4.0):
        beyond = int(np.count_nonzero(np.abs(values) > bound))
        assert stats.binomtest(beyond, len(values), 2 * stats.norm.sf(bound)).pvalue > FALSE_ALARM
    low, high = stats.chi2.ppf([FALSE_ALARM, 1 - FALSE_ALARM], len(values))
    assert low < float(values @ values) < high


@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("count", [1, 99_999])
def test_a_step_s_noise_is_normal_of_the_deviation_asked_for_and_fresh_each_time(count):
    stream, total = SecretStream(), np.full(count, 40.0)
    steps = []
    for _ in range(2):
        weights = np.zeros(count, dtype=np.float32)
        stream.descend(weights, total, 2.0, 0.5)
        steps.append((-weights / 0.5 - 40.0) / 2.0)
    # As float32, one value in two million is drawn again by chance.
    assert np.count_nonzero(steps[0] == steps[1]) <= count // 10_000
    if count > 1:
        assert stats.kstest(steps[0], "norm").pvalue > FALSE_ALARM
        assert stats.pearsonr(steps[0], steps[1]).pvalue > FALSE_ALARM


@pytest.mark.usefixtures("loops")
def test_neighbouring_values_and_halves_of_pairs_do_not_depend_on_each_other():
    values = SecretStream().gaussian(100_000, 1.0)
    half = len(values) // 2
    for one, other in ((values[:-1], values[1:]), (values[:half], values[half:])):
        assert stats.pearsonr(one, other).pvalue > FALSE_ALARM
        assert stats.pearsonr(one**2, other**2).pvalue > FALSE_ALARM


@pytest.mark.parametrize("rate", [0.01, 0.25, 0.5, 0.99])
def test_a_poisson_sample_takes_each_row_alone_with_the_public_rate(rate):
    stream = SecretStream()
    taken = np.zeros((2000, 50), dtype=bool)
    for row in taken:
        row[stream.chosen(50, rate)] = True
    assert stats.binomtest(int(taken.sum()), taken.size, rate).pvalue > FALSE_ALARM
    expected_variance = 50 * rate * (1 - rate)
    low, high = stats.chi2.ppf([FALSE_ALARM, 1 - FALSE_ALARM], 1999) / 1999 * expected_variance
    assert 0.9 * low < taken.sum(axis=1).var(ddof=1) < 1.1 * high
    columns = taken.sum(axis=0)
    spread = ((columns - 2000 * rate) ** 2 / (2000 * rate * (1 - rate))).sum()
    assert spread < stats.chi2.ppf(1 - FALSE_ALARM, 50)


def test_rate_one_takes_every_row_and_no_rows_give_an_empty_sample():
    stream = SecretStream()
    assert stream.chosen(100, 1.0).tolist() == list(range(100))
    assert stream.chosen(0, 0.5).tolist() == []


@pytest.mark.parametrize(
    ("rate", "limit"),  # a word is chosen below it: a multiple of 2^11, so that chances are multiples of 2^-53
    [(0.5, 2**63), (2.0**-53, 2**11), (1.5 * 2.0**-53, 2**11), (2.0**-54, 0), (0.0, 0), (1 - 2.0**-53, 2**64 - 2**11)],
)
def test_a_sample_takes_what_the_rate_rounded_down_to_53_bits_says(rate, limit, monkeypatch):
    words = [0, 2**11 - 1, 2**11, 2**63 - 1, 2**63, 2**64 - 2**11 - 1, 2**64 - 2**11, 2**64 - 1]
    stream = SecretStream()
    monkeypatch.setattr(stream, "words", lambda count: np.array(words[:count], dtype=np.uint64))
    taken = stream.chosen(len(words), rate)
    assert taken.dtype == np.int64
    assert taken.tolist() == [place for place, word in enumerate(words) if word < limit]


def test_global_seeds_change_nothing_and_no_two_streams_agree():
    drawn = []
    for _ in range(2):
        np.random.seed(1)  # noqa: NPY002 (the global seed is what is tested)
        torch.manual_seed(1)
        stream = SecretStream()
        drawn += [stream.gaussian(4, 1.0).tobytes(), stream.gaussian(4, 1.0).tobytes()]
    assert len(set(drawn)) == 4


@pytest.mark.usefixtures("loops")
def test_odd_counts_and_none_are_given_as_asked():
    stream = SecretStream()
    assert [len(stream.gaussian(count, 1.0)) for count in (0, 1, 2, 7, 99_999)] == [0, 1, 2, 7, 99_999]


def test_the_stream_does_not_show_its_key():
    assert repr(SecretStream()) == "SecretStream(<secret>)"
