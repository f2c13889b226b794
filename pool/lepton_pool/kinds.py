"""The kinds of work an engine knows: for each, how to ask and how it is done."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

from lepton_core.canonical import canonical_json
from lepton_core.job import ModelSpec
from lepton_core.layout import Vector
from lepton_core.settings import parse_settings
from lepton_pool.child import Handler
from lepton_pool.engine import Engine
from lepton_pool.evaluate import Floats, Metrics
from lepton_pool.evaluate import evaluate as evaluate_here
from lepton_pool.evaluate import predict as predict_here
from lepton_pool.frames import Array, Frame, bytes_array
from lepton_pool.models import Architecture
from lepton_pool.models import initial_vector as initial_vector_here

EVALUATE = "evaluate"
PREDICT = "predict"
INITIAL_MODEL = "initial-model"

#: Long enough for a slow machine to import torch first.
DEADLINE_S = 120.0


async def evaluate(
    engine: Engine,
    architecture: Architecture,
    vector: Vector,
    features: Floats,
    target: Floats,
    *,
    deadline_s: float = DEADLINE_S,
) -> Metrics:
    """The model's metrics on labelled rows; features: shape (rows, d), target: shape (rows,), classes, float32.

    Raises:
        InputError: arrays that do not fit each other or the model.
        FaultError: the engine failed.
    """
    arrays = {"vector": vector, "features": features, "target": target}
    inputs = _request(architecture, arrays)
    values = (await engine.submit(EVALUATE, inputs, deadline_s=deadline_s).result()).values
    return Metrics(accuracy=values["accuracy"], auc=values["auc"], rows=values["rows"])


async def predict(
    engine: Engine, architecture: Architecture, vector: Vector, features: Floats, *, deadline_s: float = DEADLINE_S
) -> Floats:
    """The model's logits, shape (rows,) or (rows, outputs), float32.

    Raises:
        InputError: arrays that do not fit the model.
        FaultError: the engine failed.
    """
    inputs = _request(architecture, {"vector": vector, "features": features})
    answer = await engine.submit(PREDICT, inputs, deadline_s=deadline_s).result()
    return answer.array("logits", np.float32)


async def initial_model(engine: Engine, architecture: Architecture, *, deadline_s: float = DEADLINE_S) -> Vector:
    """The model's first weights, computed in the engine; what models of entry points need, as those import torch.

    Raises:
        JobError: the model cannot be built for that many features.
        FaultError: the engine failed.
    """
    answer = await engine.submit(INITIAL_MODEL, _request(architecture, {}), deadline_s=deadline_s).result()
    return answer.array("vector", np.float32)


def _request(architecture: Architecture, arrays: Mapping[str, Array]) -> Frame:
    model = bytes_array(canonical_json(architecture.spec.model_dump(mode="json")))
    return Frame({"features": architecture.features, "outputs": architecture.outputs}, {"model": model, **arrays})


def _architecture_of(request: Frame) -> Architecture:
    document = json.loads(request.array("model", np.uint8).tobytes())
    spec = parse_settings(ModelSpec, document, source="model")
    return Architecture(spec, int(request.values["features"]), int(request.values["outputs"]))


def _do_evaluate(request: Frame) -> Frame:
    vector, features, target = (request.array(name, np.float32) for name in ("vector", "features", "target"))
    metrics = evaluate_here(_architecture_of(request), vector, features, target)
    return Frame({"accuracy": metrics.accuracy, "auc": metrics.auc, "rows": metrics.rows})


def _do_predict(request: Frame) -> Frame:
    vector, features = (request.array(name, np.float32) for name in ("vector", "features"))
    return Frame({}, {"logits": predict_here(_architecture_of(request), vector, features)})


def _do_initial_model(request: Frame) -> Frame:
    return Frame({}, {"vector": initial_vector_here(_architecture_of(request))})


#: What a worker can do, by name.
KINDS: Mapping[str, Handler] = {
    EVALUATE: _do_evaluate,
    PREDICT: _do_predict,
    INITIAL_MODEL: _do_initial_model,
}
