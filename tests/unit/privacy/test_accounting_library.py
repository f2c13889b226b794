from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from lepton_core.privacy.accounting_library import Normal

#: Prints what some compositions cost, with scipy's parts deferred and, after them, with the library as it comes.
PROBE = """
import json, sys
from lepton_core.privacy import accountant, accounting_library
from lepton_core.privacy.accountant import epsilon_of
from lepton_core.privacy.events import SampledGaussian, SummedDiscreteGaussian

one, two, whole = SampledGaussian(1.1, 0.5, 40), SampledGaussian(0.7, 0.01, 400), SampledGaussian(23.0, 1.0, 5)
summed = SummedDiscreteGaussian(
    sensitivity=1.0, share_variance=9, contributors=8, colluders=2, dimension=4, steps=3
)

def loaded():
    return [name for name in ("scipy.stats", "scipy.signal", "scipy.optimize") if name in sys.modules]

deferred = [epsilon_of([event], 1e-5).hex() for event in (one, two, whole)] + [epsilon_of([one, summed], 1e-5).hex()]
after_one_kind = loaded()
deferred.append(epsilon_of([one, two], 1e-5).hex())  # convolves, which is scipy.signal's
after_two_kinds = loaded()
for name in [name for name in sys.modules if name.partition(".")[0] == "dp_accounting"]:
    del sys.modules[name]
import scipy.optimize, scipy.signal, scipy.stats
for cache in (accountant._composed_epsilon, accountant._mixed_epsilon):
    cache.cache_clear()
for cache in (accounting_library.load_losses, accounting_library.load_rdp):
    cache.cache_clear()
whole_library = [epsilon_of([event], 1e-5).hex() for event in (one, two, whole)]
whole_library += [epsilon_of(events, 1e-5).hex() for events in ([one, summed], [one, two])]
from dp_accounting.pld import privacy_loss_mechanism
print(json.dumps({
    "deferred": deferred,
    "whole": whole_library,
    "after_one_kind": after_one_kind,
    "after_two_kinds": after_two_kinds,
    "is_scipy's": privacy_loss_mechanism.stats is scipy.stats,
}))
"""


@pytest.fixture(scope="module")
def told():
    ended = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    return json.loads(ended.stdout)


def test_a_composition_costs_to_the_last_bit_what_it_costs_with_all_of_scipy(told):
    assert told["is_scipy's"]
    assert told["deferred"] == told["whole"]
    assert len(set(told["whole"])) == len(told["whole"])


def test_scipys_slow_parts_are_loaded_when_they_are_asked_and_not_before(told):
    assert told["after_one_kind"] == []
    assert "scipy.signal" in told["after_two_kinds"]


@pytest.mark.parametrize("scale", [1e-3, 0.3, 1.0, 7.25, 1e6])
def test_the_normal_distribution_is_scipys_to_the_last_bit(scale):
    there, here = stats.norm(scale=scale), Normal(scale)
    values = scale * np.concatenate([np.linspace(-40, 40, 2001), [0.0, -np.inf, np.inf, np.nan]])
    chances = np.concatenate([np.geomspace(1e-300, 0.5, 500), 1 - np.geomspace(1e-16, 0.5, 500), [0.0, 1.0, -0.1, 1.1]])
    for name, arguments in (("cdf", values), ("logcdf", values), ("ppf", chances), ("sf", values)):
        np.testing.assert_array_equal(getattr(here, name)(arguments), getattr(there, name)(arguments))
        for argument in arguments[::97].tolist():
            found = getattr(here, name)(argument)
            assert type(found) is type(getattr(there, name)(argument))
            np.testing.assert_array_equal(found, getattr(there, name)(argument))
