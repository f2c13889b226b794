"""The models a job may name: built the same way by everybody, with a layout and first weights known without torch.

| kind | built as | tensors, in order |
|---|---|---|
| `logistic` | Linear(features, outputs) | weight, bias |
| `mlp` | Linear, ReLU for each hidden width, then Linear to the outputs | weight, bias of each Linear |
| `cnn` | Conv2d 3x3, ReLU, MaxPool2d 2 for each channel count; average to 1x1; an `mlp` head | of each Conv2d, Linear |
| other | the installed entry point of group `lepton.models` of that name | its trainable parameters |

A model with one output maps (rows, features) float32 to logits of shape (rows,), one with more to (rows, outputs).
torch is imported only where a module is built.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import numpy as np

from lepton_core.errors import InputError, JobError, NotFoundError, RefusedError
from lepton_core.job import Job, ModelSpec
from lepton_core.layout import Layout, TensorPlace, Vector

if TYPE_CHECKING:
    import torch

#: Kinds that need no installed entry point.
BUILT_IN = ("logistic", "mlp", "cnn")
#: Group of installed factories `(features: int, outputs: int, seed: int) -> torch.nn.Module`.
ENTRY_POINT_GROUP = "lepton.models"
#: Jobs are immutable, and their models are asked for several times a round.
_MOST_REMEMBERED = 256
#: Most values a model may have; a vector of this length takes 2 GiB.
MOST_PARAMETERS = 2**29


@dataclass(frozen=True)
class Architecture:
    """A model as it is built: what the job says of it, between so many features and so many logits a row."""

    spec: ModelSpec
    features: int
    #: 1: the logit of the positive class; more: one logit a class.
    outputs: int = 1


@lru_cache(maxsize=_MOST_REMEMBERED)
def architecture_of(job: Job) -> Architecture:
    """The job's model between its features and its target's classes."""
    return Architecture(job.model, job.task.width, job.task.target.outputs)


def model_layout(architecture: Architecture) -> Layout:
    """The model's trainable tensors; plain arithmetic for built-in kinds, torch for entry points.

    Raises:
        JobError: the model cannot be built for that many features, or is too large.
        NotFoundError: no built-in kind and no installed entry point of that name.
        RefusedError: an entry point's model that keeps running statistics.
    """
    if architecture.spec.kind not in BUILT_IN:
        return layout_of(build_model(architecture))
    return _built_in_layout(architecture)


@lru_cache(maxsize=_MOST_REMEMBERED)
def _built_in_layout(architecture: Architecture) -> Layout:
    layout = Layout(tuple(_built_in_places(architecture)))
    if layout.length > MOST_PARAMETERS:
        raise JobError(
            "a model this large is refused",
            where="model",
            expected=f"at most {MOST_PARAMETERS} parameters",
            got=f"{layout.length} parameters",
        )
    return layout


def initial_vector(architecture: Architecture) -> Vector:
    """The first weights, shape (length,), float32: the same bits on every platform, from the job's public seed.

    `logistic` starts at 0. `mlp` and `cnn`: every weight and bias is uniform in +-sqrt(6 / fan_in) (He et al. 2015,
    section 2.2), the last biases are 0; the uniform numbers are the upper 24 bits of the Philox4x64 words keyed by the
    seed, in the layout's order. Biases as wide as weights put the ReLUs' kinks where features scaled by generous
    public ranges really lie. Entry points set their own weights from the seed.

    Raises:
        InputError: the job's first weights come from an artifact.
        JobError, NotFoundError, RefusedError: as `model_layout`.
    """
    spec = architecture.spec
    if spec.initial is not None:
        raise InputError("the first weights are an artifact's, not a seed's", where="model.initial", got=spec.initial)
    if spec.kind not in BUILT_IN:
        return vector_of(build_model(architecture))
    layout = model_layout(architecture)
    if spec.kind == "logistic":
        return np.zeros(layout.length, dtype=np.float32)
    words = np.random.Philox(key=spec.seed, counter=0).random_raw(layout.length)  # (length,) uint64
    vector = (words >> np.uint64(40)).astype(np.float64) / 2**23 - 1.0  # (length,) in [-1, 1)
    start = 0
    for weight, bias in zip(layout.places[::2], layout.places[1::2], strict=True):
        stop = start + weight.size + bias.size
        vector[start:stop] *= math.sqrt(6.0 * weight.shape[0] / weight.size)
        start = stop
    vector[-architecture.outputs :] = 0.0
    return vector.astype(np.float32)


def build_model(architecture: Architecture) -> torch.nn.Module:
    """The model as a torch module on the CPU that maps (rows, features) to logits, (rows,) or (rows, outputs).

    Built-in kinds hold torch's default weights until `load_vector`; entry points hold those of the seed.

    Raises:
        JobError, NotFoundError, RefusedError: as `model_layout`.
    """
    spec = architecture.spec
    if spec.kind in BUILT_IN:
        model_layout(architecture)  # refuses sizes before anything is allocated
        return _built_in_module(architecture)
    found = list(entry_points(group=ENTRY_POINT_GROUP, name=spec.kind))
    if len(found) != 1:
        raise NotFoundError(
            "no such model" if not found else "two installed packages name this model",
            where="model.kind",
            expected=f"one of {', '.join(BUILT_IN)}, or one installed entry point of {ENTRY_POINT_GROUP}",
            got=spec.kind,
            hint="install the package that holds the model here",
        )
    module = found[0].load()(architecture.features, architecture.outputs, spec.seed)
    refuse_running_statistics(module)
    return module  # type: ignore[no-any-return]  # whatever the entry point builds; checked by the layout


def layout_of(module: torch.nn.Module) -> Layout:
    """The module's trainable parameters, in the module's own order."""
    return Layout(
        tuple(
            TensorPlace(name, tuple(parameter.shape))
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        )
    )


def vector_of(module: torch.nn.Module) -> Vector:
    """The module's trainable parameters as one vector, shape (length,), float32; a copy."""
    parts = [p.detach().cpu().numpy().reshape(-1) for p in module.parameters() if p.requires_grad]
    return np.concatenate(parts).astype(np.float32) if parts else np.zeros(0, dtype=np.float32)


def load_vector(module: torch.nn.Module, vector: Vector) -> None:
    """Sets the module's trainable parameters to the vector's values.

    Raises:
        InputError: the vector has another length.
    """
    import torch

    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    length = sum(parameter.numel() for parameter in parameters)
    if vector.shape != (length,) or vector.dtype != np.float32:
        raise InputError(
            "a vector that does not fit the model",
            expected=f"float32 of shape ({length},)",
            got=f"{vector.dtype} of shape {vector.shape}",
        )
    start = 0
    with torch.no_grad():
        for parameter in parameters:
            part = torch.from_numpy(vector[start : start + parameter.numel()].copy())
            parameter.copy_(part.reshape(parameter.shape))
            start += parameter.numel()


def refuse_running_statistics(module: torch.nn.Module) -> None:
    """Refuses layers that keep statistics of the records they have seen, as these would leave unnoised.

    Raises:
        RefusedError: names the layer and what to use instead.
    """
    import torch

    for name, layer in module.named_modules():
        statistics = [key for key in getattr(layer, "_buffers", {}) if key.startswith("running_")]
        if isinstance(layer, torch.nn.modules.batchnorm._NormBase) or statistics:  # noqa: SLF001 (no public base class)
            raise RefusedError(
                "a layer that keeps running statistics of records",
                where=f"model layer {name or 'itself'}",
                expected="layers whose output for a record depends on that record alone",
                got=type(layer).__name__,
                hint="use torch.nn.GroupNorm (or LayerNorm) in its place",
                reason="RUNNING_STATISTICS",
            )


def _built_in_places(architecture: Architecture) -> list[TensorPlace]:
    spec, features = architecture.spec, architecture.features
    if features < 1:
        raise JobError("a model without inputs", where="task.features", expected="at least 1", got=str(features))
    places: list[TensorPlace] = []
    index = 0
    width = features
    if spec.kind == "cnn":
        channels, height, breadth = _require_image(spec, features)
        index = 1  # module 0 gives the features their image shape
        for outputs in spec.channels:
            places += [
                TensorPlace(f"{index}.weight", (outputs, channels, 3, 3)),
                TensorPlace(f"{index}.bias", (outputs,)),
            ]
            channels = outputs
            height, breadth = height // 2, breadth // 2
            index += 3  # convolution, ReLU, pooling
        width = channels
        index += 2  # adaptive pooling, flattening
    for outputs in (*_hidden(spec), architecture.outputs):
        places += [TensorPlace(f"{index}.weight", (outputs, width)), TensorPlace(f"{index}.bias", (outputs,))]
        width = outputs
        index += 2  # Linear, ReLU
    return places


def _require_image(spec: ModelSpec, features: int) -> tuple[int, int, int]:
    if spec.image is None or min(spec.image) < 1 or math.prod(spec.image) != features:
        raise JobError(
            "the features do not fill the image of a cnn",
            where="model.image",
            expected=f"channels x height x width of {features} values",
            got=str(spec.image),
        )
    if not spec.channels or min(spec.image[1:]) < 2 ** len(spec.channels):
        raise JobError(
            "each convolution of a cnn halves the image",
            where="model.channels",
            expected="at least one, and at most log2 of the image's smaller side",
            got=f"{len(spec.channels)} for {spec.image[1]} x {spec.image[2]}",
        )
    return spec.image


def _hidden(spec: ModelSpec) -> tuple[int, ...]:
    return () if spec.kind == "logistic" else spec.hidden


def _built_in_module(architecture: Architecture) -> torch.nn.Module:
    from torch import nn

    spec, features = architecture.spec, architecture.features
    layers: list[nn.Module] = []
    width = features
    if spec.kind == "cnn":
        image = _require_image(spec, features)
        channels = image[0]
        layers.append(nn.Unflatten(1, image))
        for outputs in spec.channels:
            layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            channels = outputs
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        width = channels
    for outputs in _hidden(spec):
        layers += [nn.Linear(width, outputs), nn.ReLU()]
        width = outputs
    layers.append(nn.Linear(width, architecture.outputs))
    if architecture.outputs == 1:
        layers.append(nn.Flatten(0))  # takes the last axis away without a parameter: (rows, 1) to (rows,)
    return nn.Sequential(*layers)
