"""Server optimizers: how the averaged update moves the model. Pure, so that a member can recompute the step.

Source: Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan 2021, "Adaptive federated optimization",
algorithms 1 (FedAvg) and 2 (FedAdam); Hsu, Qi, Brown 2019 (FedAvgM).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

import numpy as np

from lepton_core.job import ServerOptimizer
from lepton_core.layout import Vector, require_finite

#: Named moment vectors, each of the model's shape; empty before the first step.
OptimizerState = Mapping[str, Vector]


def apply_update(
    settings: ServerOptimizer, model: Vector, mean_update: Vector, state: OptimizerState
) -> tuple[Vector, OptimizerState]:
    """The next model and optimizer state; float32 throughout, no argument is altered.

    model, mean_update: shape (d,).

    Raises:
        CodecError: the next model holds a value that is not finite.
    """
    rate = np.float32(settings.learning_rate)
    after: OptimizerState
    match settings.kind:
        case "fedavg":
            moved, after = model + rate * mean_update, {}
        case "fedavgm":
            # v_t = beta v_{t-1} + update; x_t = x_{t-1} + eta v_t (Hsu et al. 2019, section 4.3)
            velocity = np.float32(settings.momentum) * state.get("velocity", np.zeros_like(model)) + mean_update
            moved, after = model + rate * velocity, {"velocity": velocity}
        case "fedadam":
            beta1, beta2 = np.float32(settings.momentum), np.float32(settings.second_momentum)
            floor = np.float32(settings.adaptivity)
            first = beta1 * state.get("first", np.zeros_like(model)) + (1 - beta1) * mean_update
            second = beta2 * state.get("second", np.full_like(model, floor**2)) + (1 - beta2) * mean_update**2
            moved, after = model + rate * first / (np.sqrt(second) + floor), {"first": first, "second": second}
        case _:
            assert_never(settings.kind)
    return require_finite(moved.astype(np.float32), "the next model"), after
