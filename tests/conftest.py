"""What every test runs under: repeatable examples, one thread for linear algebra."""

from __future__ import annotations

import gc
import os
import sys
from collections import Counter
from collections.abc import Generator, Iterator

# Before numpy or torch is imported: the tests run in as many processes as there are cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The same examples in every run, so that a failure is a change's own; a loaded machine is no reason to fail.
settings.register_profile(
    "default",
    deadline=None,
    max_examples=50,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
# New examples every night.
settings.register_profile(
    "nightly", deadline=None, max_examples=2_000, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("default")

#: Files of so many tests are dealt out whole: each test dealt by itself costs the dealer as much as some take to run.
DEALT_WHOLE = 20


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Keep on one worker the tests that share a fixture of their module, which is then made once, and long files."""
    tests_in = Counter(item.path for item in items)
    for item in items:
        fixtures = item._fixtureinfo.name2fixturedefs.values()
        shares = any(made[-1].scope == "module" for made in fixtures)
        if (shares or tests_in[item.path] >= DEALT_WHOLE) and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Do not search for cycles among what is imported and collected, which stays: neither meanwhile nor later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True)
def logs_of_one_test_are_not_the_next_ones() -> Iterator[None]:
    """A command that ran in this process may have set where logs go, for all that comes after it."""
    yield
    structlog = sys.modules.get("structlog")
    if structlog is not None and structlog.is_configured():
        structlog.reset_defaults()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parents[1]
