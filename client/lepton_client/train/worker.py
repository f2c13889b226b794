"""The daemon's training process: `python -m lepton_client.train.worker [threads [MiB]]`, owned by `trainer.Trainer`.

| request | takes | gives |
|---|---|---|
| `load` | features (rows, d), target (rows,), subjects (rows,) or none | nothing |
| `train` | job (canonical bytes), model (length,), kept indices or none for all, expected_batch, shuffle | update |
| `sum` | job (canonical bytes), model (length,), kept indices or none for all | sum of clipped gradients |
| `train-alone` | job, features, target | model (length,) |
| `first-weights` | job | model (length,), from its public seed |
| `methods` | job | how each trained layer's rows are clipped, by the layer's name; no row is looked at |

Nothing else comes out: no loss, no count, no time.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lepton_core.errors import ConflictError, InputError
from lepton_core.job import Job, parse_job
from lepton_pool.child import Handler, serve
from lepton_pool.frames import Frame
from lepton_pool.memory import cap_memory, importing

if TYPE_CHECKING:
    from lepton_client.train.learner import Learner, SummingLearner
    from lepton_client.train.rows import Rows
    from lepton_core.layout import Vector

LOAD = "load"
TRAIN = "train"
SUM = "sum"
TRAIN_ALONE = "train-alone"
FIRST_WEIGHTS = "first-weights"
METHODS = "methods"


class TrainingWorker:
    """What the process holds between requests: the owner's rows, and the learner of the last job."""

    def __init__(self) -> None:
        #: Dropped when the process ends, or replaced by the next `load`.
        self._rows: Rows | None = None
        #: Belongs to `_job`; rebuilt when it changes.
        self._learner: Learner | None = None
        self._job: bytes = b""
        #: The same, of the last job whose rounds are sums.
        self._summing: SummingLearner | None = None
        self._summed_job: bytes = b""
        self._rate = 1.0

    def handlers(self) -> Mapping[str, Handler]:
        """What the worker can do, by name."""
        return {
            LOAD: self._load,
            TRAIN: self._train,
            SUM: self._sum,
            TRAIN_ALONE: self._train_alone,
            FIRST_WEIGHTS: self._first_weights,
            METHODS: self._methods,
        }

    def _load(self, request: Frame) -> Frame:
        self._rows = _rows_of(request)
        return Frame()

    def _train(self, request: Frame) -> Frame:
        from lepton_client.train.learner import build_learner, train_round

        if self._rows is None:
            raise ConflictError("there are no rows to train on", where="worker", hint="load them first")
        canonical = request.array("job", np.uint8).tobytes()
        if self._learner is None or self._job != canonical:
            self._learner, self._job = build_learner(parse_job(canonical)), canonical
        expected_batch, shuffle = request.values.get("expected_batch"), request.values.get("shuffle")
        if not isinstance(expected_batch, (int, float)):
            raise InputError("a request without a batch size", where="expected_batch", expected="a number")
        if not isinstance(shuffle, int | None):
            raise InputError("a request with an order that is none", where="shuffle", expected="a number or nothing")
        model, kept = _weights_of(request)
        update = train_round(
            self._learner, model, kept, self._rows, expected_batch=float(expected_batch), shuffle=shuffle
        )
        return Frame({}, {"update": update})

    def _sum(self, request: Frame) -> Frame:
        from lepton_client.train.learner import build_summing_learner, sum_round

        if self._rows is None:
            raise ConflictError("there are no rows to train on", where="worker", hint="load them first")
        canonical = request.array("job", np.uint8).tobytes()
        if self._summing is None or self._summed_job != canonical:
            job = parse_job(canonical)
            self._summing, self._summed_job, self._rate = (
                build_summing_learner(job),
                canonical,
                job.training.record_rate,
            )
        model, kept = _weights_of(request)
        return Frame({}, {"sum": sum_round(self._summing, model, kept, self._rows, sampling_rate=self._rate)})

    def _train_alone(self, request: Frame) -> Frame:
        from lepton_client.train.alone import train_alone

        return Frame({}, {"model": train_alone(_job_of(request), _rows_of(request))})

    @staticmethod
    def _first_weights(request: Frame) -> Frame:
        from lepton_pool.models import architecture_of, initial_vector

        return Frame({}, {"model": initial_vector(architecture_of(_job_of(request)))})

    @staticmethod
    def _methods(request: Frame) -> Frame:
        from lepton_client.train.dpsgd import PrivateModule

        return Frame(
            {"methods": {name: method.value for name, method in PrivateModule(_job_of(request)).methods.items()}}
        )


def _weights_of(request: Frame) -> tuple[Vector, npt.NDArray[np.int64] | None]:
    """The model, and the kept indices if not all are."""
    kept = request.array("kept", np.int64) if "kept" in request.arrays else None
    return request.array("model", np.float32), kept


def _rows_of(request: Frame) -> Rows:
    from lepton_client.train.rows import Rows

    subjects = request.array("subjects", np.int64) if "subjects" in request.arrays else None
    return Rows(request.array("features", np.float32), request.array("target", np.float32), subjects)


def _job_of(request: Frame) -> Job:
    return parse_job(request.array("job", np.uint8).tobytes())


def _load_handlers() -> Mapping[str, Handler]:
    if len(sys.argv) > 2:
        cap_memory(int(sys.argv[2]))
    with importing():
        import torch

        from lepton_client.train.opacus_parts import load_parts

        load_parts()
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    return TrainingWorker().handlers()


if __name__ == "__main__":
    serve(_load_handlers)
