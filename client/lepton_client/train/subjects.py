"""Squared norms of subjects' gradients, for Linear layers of which only inputs and outputs' gradients are held.

A subject's gradient is the sum over its rows of what is held, whose gradients are outer products g_i a_i^T:
    ||sum_i g_i a_i^T||^2 = sum_ij <g_i, g_j> <a_i, a_j>,
over all pairs of the subject's rows, and sum_ij <g_i, g_j> for the bias. Small subjects are taken together, a block of
rows against itself, of which other subjects' pairs are left out. What that does not suit, subjects of more rows than a
block and layers of which some weights are left out, is summed to one matrix, whose squares are added up.

The sum over pairs loses what rows cancel of each other, and so does adding long rows into a total. Every square is
therefore rounded up, by a multiple of the square of the rows' lengths added up, so that
| | |
|---|---|
| a subject's norm | is never taken for less than it is |
| a row, times its subject's clipping factor | is never longer than 2^16 clipping norms, however long rows cancel |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch

from lepton_client.train.units import Indices

#: Rows that are compared with each other at once.
_ROWS_COMPARED = 64
#: Squares are raised by so much of the squared sum of the rows' lengths. Float64 loses less of that: at most 2^-53 for
#: each term of the two inner products and each pair of a block, in layers of up to half a million inputs and outputs.
_RAISED = 2.0**-32
#: Values of rows that are turned to float64 at once.
_VALUES_WIDENED = 1 << 18


def subject_squares(
    inputs: torch.Tensor,
    gradients: torch.Tensor,
    sizes: Indices,
    *,
    parameters: frozenset[str],
    masks: Mapping[str, torch.Tensor],
) -> torch.Tensor:
    """Each subject's squared norm over a Linear layer's kept parameters, rounded up, (subjects,), float64.

    inputs a (rows, d), gradients g (rows, outputs), subject after subject; sizes (subjects,): rows of each.
    `parameters`: those trained, of `weight` and `bias`; `masks`: true on what is kept of them, where not all is.
    A subject with a row that is not finite gets a square that is not.
    """
    squares = torch.empty(len(sizes), dtype=torch.float64)
    for subjects, rows in _blocks(sizes):
        part = inputs[rows], gradients[rows]
        if subjects.stop - subjects.start == 1 and len(part[0]) > _ROWS_COMPARED:
            squares[subjects] = _square_of_sum(*part, parameters=parameters, masks=masks)
        elif "weight" in masks:
            start = rows.start
            for place in range(subjects.start, subjects.stop):
                one = slice(start, start := start + int(sizes[place]))
                squares[place] = _square_of_sum(inputs[one], gradients[one], parameters=parameters, masks=masks)
        else:
            squares[subjects] = _squares_of_pairs(*part, sizes[subjects], parameters=parameters, masks=masks)
    return squares.clamp_(min=0.0).add_(_raised(inputs, gradients, sizes, parameters=parameters))


def places_of(sizes: Indices) -> torch.Tensor:
    """Which subject each row is of, (rows,), int64, for rows that lie subject after subject."""
    return torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes))


def _blocks(sizes: Indices) -> Iterator[tuple[slice, slice]]:
    """Subjects one after another, and their rows: as many as fit `_ROWS_COMPARED` rows, at least one."""
    ends = np.cumsum(sizes)
    first = 0
    while first < len(sizes):
        before = int(ends[first] - sizes[first])
        last = max(first + 1, int(np.searchsorted(ends, before + _ROWS_COMPARED, side="right")))
        yield slice(first, last), slice(before, int(ends[last - 1]))
        first = last


def _squares_of_pairs(
    inputs: torch.Tensor,
    gradients: torch.Tensor,
    sizes: Indices,
    *,
    parameters: frozenset[str],
    masks: Mapping[str, torch.Tensor],
) -> torch.Tensor:
    """Sums over the pairs of each subject's rows, (subjects,); the weight is whole or not trained."""
    inputs, gradients = inputs.double(), gradients.double()
    alike = gradients @ gradients.t()  # (rows, rows): <g_i, g_j>
    pairs = torch.zeros_like(alike)
    if "weight" in parameters:
        pairs.addcmul_(alike, inputs @ inputs.t())
    if "bias" in masks:
        kept = gradients[:, masks["bias"]]
        pairs.addmm_(kept, kept.t())
    elif "bias" in parameters:
        pairs += alike
    subject = places_of(sizes)
    # Chosen, not multiplied by 0: what is not finite must not reach another subject.
    pairs = torch.where(subject.unsqueeze(1) == subject, pairs, 0.0)
    return torch.zeros(len(sizes), dtype=torch.float64).index_add_(0, subject, pairs.sum(dim=1))


def _square_of_sum(
    inputs: torch.Tensor,
    gradients: torch.Tensor,
    *,
    parameters: frozenset[str],
    masks: Mapping[str, torch.Tensor],
) -> torch.Tensor:
    """The squared norm of one subject's summed gradient, a number; holds one weight matrix in float64."""
    weight = torch.zeros(gradients.shape[1], inputs.shape[1], dtype=torch.float64)
    bias = torch.zeros(gradients.shape[1], dtype=torch.float64)
    step = max(1, _VALUES_WIDENED // (inputs.shape[1] + gradients.shape[1]))
    for start in range(0, len(inputs), step):
        some = gradients[start : start + step].double()
        if "weight" in parameters:
            weight.addmm_(some.t(), inputs[start : start + step].double())
        if "bias" in parameters:
            bias += some.sum(dim=0)
    if "weight" in masks:
        weight.masked_fill_(~masks["weight"].view_as(weight), 0.0)
    if "bias" in masks:
        bias.masked_fill_(~masks["bias"], 0.0)
    return weight.square_().sum() + bias.square_().sum()


def _raised(
    inputs: torch.Tensor, gradients: torch.Tensor, sizes: Indices, *, parameters: frozenset[str]
) -> torch.Tensor:
    """What each subject's square is rounded up by, (subjects,)."""
    reach = torch.full((len(inputs),), float("bias" in parameters), dtype=torch.float64)
    if "weight" in parameters:
        reach += torch.linalg.vector_norm(inputs, dim=1, dtype=torch.float64).square_()
    lengths = reach.sqrt_().mul_(torch.linalg.vector_norm(gradients, dim=1, dtype=torch.float64))
    together = torch.zeros(len(sizes), dtype=torch.float64).index_add_(0, places_of(sizes), lengths)
    return together.square_().mul_(_RAISED)
