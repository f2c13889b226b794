"""Opacus' rules for per-sample gradients without the rest of Opacus.

`import opacus` loads scipy and torch.distributed.tensor, which takes longer than all a small job trains. The rules
need neither: their packages are made without running their `__init__`, the rules register themselves with a small
stand-in for `opacus.grad_sample.utils`, and what was made is taken out of `sys.modules` again, so that a later
`import opacus` finds nothing half loaded. If Opacus is loaded already, or its parts have moved, the plain import is
used.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

#: A rule: layer, its inputs in a list, the gradients for its outputs; gives each trainable parameter's, (rows, ...).
Sampler = Callable[[nn.Module, list[torch.Tensor], torch.Tensor], Mapping[nn.Parameter, torch.Tensor]]

_BARE_PACKAGES = ("opacus", "opacus.grad_sample", "opacus.layers", "opacus.utils")
_RULES = ("conv", "embedding", "group_norm", "layer_norm")


@dataclass(frozen=True)
class OpacusParts:
    """What training needs of Opacus."""

    #: Opacus' rules, by the type of layer.
    samplers: Mapping[type[nn.Module], Sampler]


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
    importlib.import_module("opacus.grad_sample")
    module: Any = importlib.import_module("opacus.grad_sample.grad_sample_module")
    return OpacusParts(dict(module.GradSampleModule.GRAD_SAMPLERS))


def prepare_convolutions(module: nn.Module) -> None:
    """Loads what Opacus' rule for convolutions looks up when it runs, if the module has any; about half a second."""
    if any(isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) for layer in module.modules()):
        importlib.import_module("torch.distributed.fsdp")


def _load_bare() -> OpacusParts:
    found = importlib.util.find_spec("opacus")
    if found is None or not found.submodule_search_locations:
        raise ImportError("opacus")
    with _bare_packages(Path(found.submodule_search_locations[0])):
        samplers: dict[type[nn.Module], Sampler] = {}
        sys.modules["opacus.grad_sample.utils"] = _registration_into(samplers)
        for rule in _RULES:
            importlib.import_module(f"opacus.grad_sample.{rule}")
        return OpacusParts(samplers)


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


def _registration_into(samplers: dict[type[nn.Module], Sampler]) -> ModuleType:
    """Stands in for `opacus.grad_sample.utils`, which imports every flavour of gradient clipping there is."""

    def register_grad_sampler(kinds: Any) -> Callable[[Any], Any]:
        def register(sampler: Sampler) -> Sampler:
            samplers.update(dict.fromkeys(kinds if isinstance(kinds, Sequence) else [kinds], sampler))
            return sampler

        return register

    def register_norm_sampler(kinds: Any) -> Callable[[Any], Any]:
        del kinds  # norms without gradients belong to ghost clipping, which is not loaded
        return lambda sampler: sampler

    module = ModuleType("opacus.grad_sample.utils")
    vars(module).update(register_grad_sampler=register_grad_sampler, register_norm_sampler=register_norm_sampler)
    return module
