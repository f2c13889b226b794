"""The sum of a batch's clipped gradients, a row's or a subject's each, from one forward and one backward pass.

Book-keeping (Bu, Wang, Zha and Karypis 2023, "Differentially Private Optimization on Large Model at Small Cost",
sections 3.1 and 3.2), over all parameters together:
1. Forward: each trained layer's inputs a_i are kept, for every row i.
2. Backward: the loss's gradients g_i for each layer's outputs are kept; no parameter's gradient is computed.
3. A Linear layer's squared norm of row i is ||g_i||^2 (||a_i||^2 + 1), the 1 for its bias. Where only some
   coordinates are kept it is sum_jk M_jk g_ij^2 a_ik^2, M being 1 on kept weights, which is as exact (the row's
   gradient is the outer product g_i a_i^T, Goodfellow 2015, "Efficient Per-Example Gradient Computations").
   Other layers compute their own rows' gradients (`layers`), hold them, and sum their squares.
4. The clipping factor of row i is min(1, C / norm_i), the norm being over all layers.
5. A Linear layer's clipped sum is sum_i f_i g_i a_i^T, one matrix product; other layers add up f_i times
   what they hold.

A subject's gradient is the mean of its rows': a subject's rows are weighed by one over their number in the loss, and
then added up. So the clipping norm means the same however many rows subjects have. Of a subject, steps 3 to 5 are taken
on that sum (`subjects` for Linear layers; other layers add up rows' gradients as they come), and all its rows are
scaled by its one factor. A subject of too many rows to be held is summed a slice at a time, into one flat vector.

Guarantees, for clipping norms C that a job may ask for, whatever the rows and the weights hold:
| row, or subject | what it adds to the sum |
|---|---|
| of norm at most C (1 - 2^-22) | its gradient |
| longer | its gradient at norm C (1 - 2^-22), so that rounding never brings it above C |
| not finite, in a kept coordinate or on the way to it | nothing, and no other is touched |
| so long that the factor is below 2^-126 | nothing |
| a subject whose rows cancel to less than 2^-16 of their lengths | no more than its gradient, at no more than C |
Norms and sums are float64: squares of float32 neither overflow nor vanish there, and what rounding a sum moves it by is
far below anything that noise is measured in, however many rows there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from lepton_client.train.layers import (
    Calls,
    Method,
    TrainedLayer,
    method_of,
    refuse_layer,
    row_gradients,
    trained_layers,
)
from lepton_client.train.recording import Recorder
from lepton_client.train.row_by_row import gradients_row_by_row
from lepton_client.train.subjects import places_of, subject_squares
from lepton_client.train.units import Indices
from lepton_compression.native import load_kernels
from lepton_core.errors import RefusedError

Doubles = npt.NDArray[np.float64]

#: More than rounding adds to a row's length, relative: factor, product with it and outer product in float32, 3 * 2^-24.
_ROUNDING_SLACK = 2.0**-22
#: The least factor: float32's smallest normal number, as below it a crafted model could do what it likes.
_LEAST_FACTOR = torch.finfo(torch.float32).tiny
#: Values of rows that are turned to float64 at once.
_VALUES_WIDENED = 1 << 17
#: Values of a mask that are turned to float64 at once.
_MASK_WIDENED = 1 << 18
#: The rows that a model is tried on.
_MADE_UP_ROWS = 2
#: How far gradients of made-up rows may be apart, relative: a ReLU near its kink may fall on the other side.
_MOST_MISMATCH = 0.02


@dataclass
class _Held:
    """What is held of a layer between the backward pass and the sum."""

    trained: TrainedLayer
    #: Inputs (rows, d) and gradients (rows, outputs) of a Linear layer, or None.
    outer: tuple[torch.Tensor, torch.Tensor] | None
    #: Each unit's gradient, (units, values), of every other layer, or None.
    rows: torch.Tensor | None
    #: Rows of each subject, (units,); None if every row is a unit.
    sizes: Indices | None = None

    def only(self, which: Indices) -> _Held:
        """The same of these units alone."""
        if self.sizes is None:
            rows = which
        else:
            rows = np.flatnonzero(np.isin(np.repeat(np.arange(len(self.sizes)), self.sizes), which))
        outer = None if self.outer is None else (self.outer[0][rows], self.outer[1][rows])
        sizes = None if self.sizes is None else self.sizes[which]
        return _Held(self.trained, outer, None if self.rows is None else self.rows[which], sizes)


class ClippedSums:
    """A model of so many features whose batches' clipped gradient sums can be taken.

    Its parameters become views of one flat vector, and two made-up rows are tried, together and alone, so that a model
    that mixes rows, or a rule that does not fit it, is found before a record is.

    Raises:
        RefusedError: running statistics, layers without a rule or that mix rows, or a model that cannot be run; told
            with what to use instead.
    """

    def __init__(self, module: nn.Module, features: int) -> None:
        self._layers = trained_layers(module)
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        #: The weights, (length,), float32; every trainable parameter is a view of its part.
        self.flat = torch.cat([parameter.detach().reshape(-1) for parameter in parameters] or [torch.zeros(0)])
        start = 0
        for parameter in parameters:
            parameter.data = self.flat[start : start + parameter.numel()].view(parameter.shape)
            start += parameter.numel()
        self._recorder = Recorder(module, self._layers)
        #: How each layer of that name is clipped.
        self.methods: dict[str, Method] = {}
        #: Values that are held of a row between the passes and the sum.
        self.held_per_row = 1
        module.eval()  # dropout would tell a row from itself
        try:
            self._try(module, parameters, features)
        except RuntimeError as error:  # torch's own; no record has been seen
            raise RefusedError(
                "the model cannot be run row by row",
                where=f"model layer {self._layers[0].name or 'itself'}" if self._layers else "model",
                expected="layers that take rows, and compute new tensors in place of changing old ones",
                got=str(error).split("\n", maxsplit=1)[0],
                hint="use relu in place of relu_, and check the shapes between layers",
                reason="NO_GRADIENT_RULE",
            ) from None
        module.train()

    @property
    def length(self) -> int:
        """Values of the flat model."""
        return len(self.flat)

    def add(
        self,
        total: Doubles,
        features: torch.Tensor,
        target: torch.Tensor,
        *,
        clip_norm: float,
        kept: torch.Tensor | None = None,
        sizes: Indices | None = None,
    ) -> None:
        """Adds the rows' clipped gradients to `total`, (length,), float64; see the module for what is guaranteed.

        features: (rows, d), target: (rows,), float32. `kept` is true on the coordinates that norms are over, (length,),
        bool, None for all; what is added elsewhere means nothing, and may be anything. `sizes` has the number of rows
        of each subject, (subjects,), int64, whose rows follow each other; then subjects' gradients are clipped.

        Raises:
            RefusedError: a layer that was not called, that mixes rows, or whose inputs or outputs were changed after.
        """
        if len(target) == 0:
            return
        weights = None if sizes is None else torch.from_numpy(np.repeat(1.0 / sizes, sizes).astype(np.float32))
        held = self._held(self._recorder.record(features, target, weights), kept, sizes)
        with torch.no_grad():
            squares = torch.zeros(len(target) if sizes is None else len(sizes), dtype=torch.float64)
            for one in held:
                _add_squares(squares, one, kept)
            factors = clipping_factors(squares.numpy(), clip_norm)
            if not factors.all():
                used = np.flatnonzero(factors)
                held, factors = [one.only(used) for one in held], factors[used]
            for one in held:
                _add_clipped(total, one, factors)

    def add_long(
        self,
        total: Doubles,
        slices: Iterable[tuple[torch.Tensor, torch.Tensor]],
        rows: int,
        *,
        clip_norm: float,
        kept: torch.Tensor | None = None,
    ) -> None:
        """As `add`, for one subject of so many rows in slices of features and target; holds one more flat vector.

        Raises:
            RefusedError: as `add`.
        """
        own = np.zeros(self.length)
        for features, target in slices:
            weights = torch.full((len(target),), 1.0 / rows)
            size = np.array([len(target)])
            for one in self._held(self._recorder.record(features, target, weights), kept, size):
                with torch.no_grad():
                    _add_clipped(own, one, np.ones(1))
        if kept is not None:
            own[~kept.numpy()] = 0.0
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite gets no factor
            factor = clipping_factors(np.array([own @ own]), clip_norm)[0]
        if factor:
            total += factor * own

    def _try(self, module: nn.Module, parameters: list[nn.Parameter], width: int) -> None:
        """Takes two made-up rows, (2, width), together and alone; notes methods and sizes.

        Raises:
            RefusedError: a layer whose rows' gradients are not what they are alone.
        """
        generator = torch.Generator().manual_seed(0)
        features, target = torch.rand(_MADE_UP_ROWS, width, generator=generator), torch.arange(float(_MADE_UP_ROWS))
        recorded = self._recorder.record(features, target)
        exact = gradients_row_by_row(module, parameters, features, target).double()
        held = self._held(recorded, None, None)
        found = torch.zeros_like(exact)
        for one in held:
            name, layer, calls = one.trained.name, one.trained.layer, recorded[one.trained.name]
            self.methods[name] = Method.CLOSED_FORM if self._recorder.is_head else method_of(layer, calls)
            values = sum(inputs.numel() + 2 * gradients.numel() for inputs, gradients in calls)
            self.held_per_row += -(-(values + (0 if one.rows is None else one.rows.numel())) // _MADE_UP_ROWS)
            for row in range(_MADE_UP_ROWS):
                _add_clipped(found[row].numpy(), one.only(np.array([row])), np.ones(1))
            for place in one.trained.places.values():
                apart = (found - exact)[:, place].norm()
                if not bool(apart <= _MOST_MISMATCH * exact[:, place].norm() + _LEAST_FACTOR):
                    what = "a layer whose rows' gradients are not what they are alone"
                    refuse_layer(name, layer, what, "let no row depend on another, and call each layer by itself")

    def _held(self, recorded: Mapping[str, Calls], kept: torch.Tensor | None, sizes: Indices | None) -> list[_Held]:
        held = []
        subject = None if sizes is None else places_of(sizes)
        with torch.no_grad():
            for trained in self._layers:
                calls = recorded[trained.name]
                if method_of(trained.layer, calls) is Method.BOOK_KEEPING:
                    held.append(_Held(trained, calls[0], None, sizes))
                    continue
                rows = torch.empty(len(calls[0][0]) if sizes is None else len(sizes), trained.values)
                row_gradients(trained, calls, rows, subject)
                if kept is not None:
                    rows.masked_fill_(~_joined(kept, trained), 0.0)
                held.append(_Held(trained, None, rows, sizes))
        return held


def clipping_factors(squares: Doubles, norm: float) -> Doubles:
    """What rows of these squared norms, (rows,), are multiplied by to be no longer than `norm`; (rows,).

    0 for rows that are not finite, and for those whose factor would be below 2^-126.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        factors = np.minimum(norm * (1.0 - _ROUNDING_SLACK) / np.sqrt(squares), 1.0)  # 1 for rows of zeros
        factors[~(factors >= _LEAST_FACTOR)] = 0.0  # nor is what is not a number
    return factors


def _add_squares(squares: torch.Tensor, held: _Held, kept: torch.Tensor | None) -> None:
    """Adds each unit's squared norm over the layer's kept parameters to `squares`, (units,), float64."""
    if held.outer is None:
        assert held.rows is not None  # noqa: S101 (one of the two is there)
        squares += _squared(held.rows)
        return
    inputs, gradients = held.outer
    places = held.trained.places
    masks = {} if kept is None else {key: kept[place] for key, place in places.items()}
    if held.sizes is not None:
        squares += subject_squares(inputs, gradients, held.sizes, parameters=frozenset(places), masks=masks)
    elif kept is None:
        _add_outer_squares(squares, inputs, gradients, frozenset(places))
    else:
        _add_masked_squares(squares, inputs, gradients, masks)


def _add_outer_squares(
    squares: torch.Tensor, inputs: torch.Tensor, gradients: torch.Tensor, parameters: frozenset[str]
) -> None:
    """Adds ||g_i||^2 ||a_i||^2 of a weight and ||g_i||^2 of a bias; inputs a (rows, d), gradients g (rows, outputs)."""
    kernels = load_kernels()
    if kernels is not None:
        sides = inputs.contiguous(), gradients.contiguous()
        kernels.add_outer_squares(*sides, squares, weight="weight" in parameters, bias="bias" in parameters)
        return
    of_gradients = _squared(gradients)
    if "weight" in parameters:
        squares.addcmul_(of_gradients, _squared(inputs))
    if "bias" in parameters:
        squares += of_gradients


def _add_masked_squares(
    squares: torch.Tensor, inputs: torch.Tensor, gradients: torch.Tensor, masks: Mapping[str, torch.Tensor]
) -> None:
    """The same over the values alone that a weight's mask, (outputs * d,), and a bias's, (outputs,), keep."""
    kernels = load_kernels()
    if "weight" in masks and kernels is not None:
        sides = inputs.contiguous(), gradients.contiguous()
        kernels.add_masked_squares(*sides, masks["weight"].numpy(), squares)
    elif "weight" in masks:
        squares += _masked_squares(inputs, gradients, masks["weight"].view(gradients.shape[1], inputs.shape[1]))
    if "bias" in masks:
        squares += _squared(gradients[:, masks["bias"]])


def _squared(values: torch.Tensor) -> torch.Tensor:
    """Squared norms of the rows of (rows, values), computed in float64."""
    squares: torch.Tensor = torch.linalg.vector_norm(values, dim=1, dtype=torch.float64).square_()
    return squares


def _masked_squares(inputs: torch.Tensor, gradients: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """sum_jk M_jk g_ij^2 a_ik^2 of each row i, (rows,); inputs a (rows, d), gradients g (rows, outputs), mask M."""
    squares = inputs.double().square_()
    reached = torch.zeros_like(squares)  # (rows, d): sum_j M_jk g_ij^2
    step = max(1, _MASK_WIDENED // max(1, mask.shape[1]))
    for start in range(0, len(mask), step):
        part = slice(start, start + step)
        reached.addmm_(gradients[:, part].double().square_(), mask[part].double())
    return reached.mul_(squares).sum(dim=1)


def _add_clipped(total: Doubles, held: _Held, factors: Doubles) -> None:
    """Adds the units, each times its factor, to the layer's part of `total`; no unit is unbounded here.

    (Save in `add_long`, which looks at the sum.)
    """
    places = held.trained.places
    if held.outer is not None:
        factors = factors if held.sizes is None else np.repeat(factors, held.sizes)
        parts = {name: total[place] for name, place in places.items()}
        _add_outer(*held.outer, factors, weight=parts.get("weight"), bias=parts.get("bias"))
        return
    assert held.rows is not None  # noqa: S101 (one of the two is there)
    for part in _slices(len(factors), held.rows.shape[1]):
        values = held.rows[part].double().t().mv(torch.from_numpy(factors[part])).numpy()  # (values,)
        at = 0
        for place in places.values():
            total[place] += values[at : (at := at + place.stop - place.start)]


def _add_outer(
    inputs: torch.Tensor,
    gradients: torch.Tensor,
    factors: Doubles,
    *,
    weight: Doubles | None,
    bias: Doubles | None,
) -> None:
    """Adds sum_i f_i g_i a_i^T to `weight`, (outputs * d,), and sum_i f_i g_i to `bias`, (outputs,), in float64.

    inputs a: (rows, d), gradients g: (rows, outputs), factors f: (rows,).
    """
    kernels = load_kernels()
    if kernels is not None:
        kernels.add_outer(inputs.contiguous(), gradients.contiguous(), factors, weight=weight, bias=bias)
        return
    for part in _slices(len(factors), inputs.shape[1] + gradients.shape[1]):
        scaled = gradients[part].double().mul_(torch.from_numpy(factors[part]).unsqueeze(1))
        if weight is not None:
            torch.from_numpy(weight).view(gradients.shape[1], inputs.shape[1]).addmm_(scaled.t(), inputs[part].double())
        if bias is not None:
            bias += scaled.sum(dim=0).numpy()


def _slices(rows: int, values: int) -> Iterator[slice]:
    """Rows of so many values each, as many at once as are turned to float64 at once."""
    at_once = max(1, _VALUES_WIDENED // max(1, values))
    for start in range(0, rows, at_once):
        yield slice(start, start + at_once)


def _joined(kept: torch.Tensor, trained: TrainedLayer) -> torch.Tensor:
    return torch.cat([kept[place] for place in trained.places.values()])
