"""Opacus' per-sample gradients without the rest of Opacus.

`import opacus` loads scipy and torch.distributed.tensor, which takes longer than all a small job trains. The module
that computes per-sample gradients needs neither: its packages are made without running their `__init__`, the rules
for Linear and convolutions register themselves with a small stand-in for `opacus.grad_sample.utils`, and what was
made is taken out of `sys.modules` again, so that a later `import opacus` finds nothing half loaded. If Opacus is
loaded already, or its parts have moved, the plain import is used.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

_BARE_PACKAGES = ("opacus", "opacus.grad_sample", "opacus.layers", "opacus.utils")
_RULES = ("linear", "conv")


@dataclass(frozen=True)
class OpacusParts:
    """What training needs of Opacus."""

    #: `opacus.grad_sample.grad_sample_module.GradSampleModule`.
    grad_sample_module: Callable[..., nn.Module]
    #: Layer types that Opacus has a rule of its own for.
    rules: frozenset[type[nn.Module]]


@functools.cache
def load_parts() -> OpacusParts:
    """The parts, loaded once a process.

    Raises:
        ImportError: Opacus is not installed.
    """
    if "opacus" not in sys.modules:
        try:
            return _load_bare()
        except (ImportError, AttributeError):
            pass  # another version of Opacus: its own import is slower, and right
    modules = importlib.import_module("opacus.grad_sample.grad_sample_module")
    importlib.import_module("opacus.grad_sample")
    return _parts_of(modules)


def prepare_convolutions(module: nn.Module) -> None:
    """Loads what Opacus' rule for convolutions looks up when it runs, if the module has any; about half a second."""
    if any(isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) for layer in module.modules()):
        importlib.import_module("torch.distributed.fsdp")


def _load_bare() -> OpacusParts:
    found = importlib.util.find_spec("opacus")
    if found is None or not found.submodule_search_locations:
        raise ImportError("opacus")
    with _bare_packages(Path(found.submodule_search_locations[0])):
        modules = importlib.import_module("opacus.grad_sample.grad_sample_module")
        sys.modules["opacus.grad_sample.utils"] = _registration_into(modules.GradSampleModule.GRAD_SAMPLERS)
        for rule in _RULES:
            importlib.import_module(f"opacus.grad_sample.{rule}")
        return _parts_of(modules)


@contextmanager
def _bare_packages(root: Path) -> Iterator[None]:
    try:
        for name in _BARE_PACKAGES:
            package = ModuleType(name)
            package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
            sys.modules[name] = package
        yield
    finally:
        for name in [name for name in sys.modules if name == "opacus" or name.startswith("opacus.")]:
            del sys.modules[name]


def _registration_into(samplers: dict[type[nn.Module], Any]) -> ModuleType:
    """Stands in for `opacus.grad_sample.utils`, which imports every flavour of gradient clipping there is."""

    def register_grad_sampler(kinds: Any) -> Callable[[Any], Any]:
        def register(sampler: Any) -> Any:
            samplers.update(dict.fromkeys(kinds if isinstance(kinds, Sequence) else [kinds], sampler))
            return sampler

        return register

    def register_norm_sampler(kinds: Any) -> Callable[[Any], Any]:
        del kinds  # norms without gradients belong to ghost clipping, which is not loaded
        return lambda sampler: sampler

    module = ModuleType("opacus.grad_sample.utils")
    vars(module).update(register_grad_sampler=register_grad_sampler, register_norm_sampler=register_norm_sampler)
    return module


def _parts_of(modules: Any) -> OpacusParts:
    return OpacusParts(
        grad_sample_module=modules.GradSampleModule, rules=frozenset(modules.GradSampleModule.GRAD_SAMPLERS)
    )
