"""dp-accounting without those parts of scipy that it never asks here.

`import dp_accounting` loads scipy.stats, scipy.signal and scipy.optimize: 1.1 of its 1.6 seconds, in every daemon and
every command that tells an epsilon. Of all three a composition of Gaussians asks for the normal distribution, which
scipy.stats works out by three functions of scipy.special. So while dp-accounting is imported, a stand-in for each of
the three lies in `sys.modules`: it imports the real one at the first question, but answers `stats.norm(scale=...)` by
the same functions of scipy.special, to the last bit. Where one of the three is loaded already, nothing is done.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

_STATS = "scipy.stats"
_DEFERRED = (_STATS, "scipy.signal", "scipy.optimize")


@functools.cache
def load_losses() -> Any:
    """`dp_accounting.pld.privacy_loss_distribution`, loaded once a process."""
    with _scipy_deferred():
        from dp_accounting.pld import privacy_loss_distribution
    return privacy_loss_distribution


@functools.cache
def load_rdp() -> Any:
    """`dp_accounting.rdp`, loaded once a process."""
    with _scipy_deferred():
        from dp_accounting import rdp
    return rdp


@dataclass(frozen=True)
class Normal:
    """What `scipy.stats.norm(scale=scale)` gives; what is not defined here, that gives itself."""

    scale: float

    def cdf(self, x: Any) -> Any:
        """The chance of a value of at most x."""
        from scipy import special

        return special.ndtr(x / self.scale)

    def logcdf(self, x: Any) -> Any:
        """The logarithm of `cdf`."""
        from scipy import special

        return special.log_ndtr(x / self.scale)

    def ppf(self, q: Any) -> Any:
        """The value that has the chance q of not being exceeded."""
        from scipy import special

        return special.ndtri(q) * self.scale

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_real(_STATS).norm(scale=self.scale), name)


class _Deferred(ModuleType):
    """A module that is imported when it is first asked for something."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)  # asked by the import system, which has what it needs
        return getattr(_real(self.__name__), name)


@contextmanager
def _scipy_deferred() -> Iterator[None]:
    if any(name in sys.modules for name in ("dp_accounting", *_DEFERRED)):
        yield
        return
    try:
        for name in _DEFERRED:
            sys.modules[name] = _Deferred(name)
        sys.modules[_STATS].norm = _norm  # type: ignore[attr-defined]  # a module is given what it is to offer
        yield
    finally:
        for name in _DEFERRED:
            if isinstance(sys.modules.get(name), _Deferred):
                del sys.modules[name]


def _norm(*arguments: Any, **named: Any) -> Any:
    if not arguments and set(named) == {"scale"}:
        return Normal(named["scale"])
    return _real(_STATS).norm(*arguments, **named)


def _real(name: str) -> Any:
    if isinstance(sys.modules.get(name), _Deferred):
        del sys.modules[name]
    return importlib.import_module(name)
