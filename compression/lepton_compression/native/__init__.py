"""Compiled inner loops of rotation, rounding, noise and clipping, where the installation had a C compiler.

`load_kernels` gives them, or None: then numpy computes the same, more slowly. They are built with the package by
`build.py`, and are used only if they were built from the very sources that lie beside them.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lepton_compression.native.build import LIBRARY, source_digest
from lepton_core.errors import CodecError

_FOLDER = Path(__file__).parent
_ROWS = 4096

_POINTER, _INT, _FLOAT, _DOUBLE = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_double
_ARGUMENTS = {
    "lepton_transform": (_POINTER, _INT),
    "lepton_turn": (_POINTER, _POINTER, _POINTER, _INT),
    "lepton_blocks": (_POINTER, _INT),
    "lepton_mix": (*[_POINTER] * 5, _INT, _INT),
    "lepton_unmix": (*[_POINTER] * 5, _INT, _INT),
    "lepton_quantize": (_POINTER, _POINTER, _INT, _INT, _INT, _INT, _FLOAT, _FLOAT, _INT, _POINTER, _POINTER),
    "lepton_dequantize": (_POINTER, _POINTER, _POINTER, _INT, _INT, _INT, _POINTER),
    "lepton_gaussians": (_POINTER, _INT, _DOUBLE, _POINTER),
    "lepton_descend": (_POINTER, _DOUBLE, _POINTER, _INT, _DOUBLE, _POINTER),
    "lepton_add_outer_squares": (_POINTER, _POINTER, *[_INT] * 5, _POINTER),
    "lepton_add_masked_squares": (*[_POINTER] * 3, *[_INT] * 3, _POINTER),
    "lepton_add_outer": (*[_POINTER] * 3, *[_INT] * 3, _POINTER, _POINTER),
}
#: Those that there are for either float type.
_ROTATING = {"lepton_transform", "lepton_turn", "lepton_blocks", "lepton_mix", "lepton_unmix"}
_SUFFIX = {np.dtype(np.float32): "f32", np.dtype(np.float64): "f64"}

Array = npt.NDArray[Any]


class Tensor(Protocol):
    """A torch tensor, which this package does not import: told where it begins in a tenth of an array's time."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its dimensions."""
        ...

    def data_ptr(self) -> int:
        """Where it begins."""
        ...

    def element_size(self) -> int:
        """Bytes of a value."""
        ...

    def is_contiguous(self) -> bool:
        """Whether its values follow each other."""
        ...

    def is_floating_point(self) -> bool:
        """Whether its values are floats."""
        ...


class Kernels:
    """The loops of one library. Arrays are checked here: contiguous, of the right type and length."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._calls: dict[str, Any] = {}
        for name, arguments in _ARGUMENTS.items():
            floats = tuple(f"_{one}" for one in _SUFFIX.values()) if name in _ROTATING else ("",)
            for suffix in floats:
                call = getattr(library, name + suffix)
                call.argtypes = arguments
                call.restype = _INT if name == "lepton_quantize" else None
                self._calls[name + suffix] = call

    def transform(self, grid: Array) -> None:
        """The orthonormal Hadamard transform of each column of (4096, m), in place; float32 or float64."""
        columns = _columns(grid)
        self._calls[f"lepton_transform_{_SUFFIX[grid.dtype]}"](_at(grid, grid.dtype, grid.size), columns)

    def turn(self, source: Array, signs: Array, target: Array) -> None:
        """The source with these signs, a bit a value, into another array; float32 or float64, 64 values a word."""
        suffix, count = _suffix(source), 64 * signs.size
        self._calls[f"lepton_turn_{suffix}"](
            _at(source, source.dtype, count),
            _at(signs, np.uint64, signs.size),
            _at(target, source.dtype, count),
            count,
        )

    def blocks(self, values: Array) -> None:
        """The orthonormal Hadamard transforms of a tail's blocks, in place; a multiple of 16 below 4096 of values."""
        suffix = _suffix(values)
        if values.ndim != 1 or values.size % 16 or values.size >= _ROWS:
            raise CodecError("not a tail", expected=f"a multiple of 16 below {_ROWS}", got=str(values.shape))
        self._calls[f"lepton_blocks_{suffix}"](_at(values, values.dtype, values.size), values.size)

    def mix(self, source: Array, signs: Array, second_signs: Array, target: Array, side: int) -> None:
        """`Rotation`'s signs and mixing of the columns of (4096, m), m >= side, into another grid; side 4 or 16.

        Signs are 64 m words, a bit a value.
        """
        self._call_mixing("lepton_mix", (source, signs, second_signs, target), side)

    def unmix(self, source: Array, signs: Array, second_signs: Array, target: Array, side: int) -> None:
        """What `mix` would turn into the source."""
        self._call_mixing("lepton_unmix", (source, signs, second_signs, target), side)

    def quantize(
        self,
        rotated: Array,
        words: Array,
        lanes: Array,
        difference: Array,
        *,
        offset: int,
        fraction_bits: int,
        middle: int,
        bound: float,
        unit: float,
        dithered: bool,
    ) -> int:
        """One piece of `quantizer.quantize`: lanes, and by how many steps each is off; the count of saturated."""
        count = rotated.size
        saturated: int = self._calls["lepton_quantize"](
            _at(rotated, np.float32, count),
            _at(words, np.uint16, count),
            count,
            offset,
            fraction_bits,
            middle,
            bound,
            unit,
            dithered,
            _at(lanes, np.int64, count),
            _at(difference, np.float32, count),
        )
        return saturated

    def dequantize(
        self, total: Array, words: Array | None, taken: Array | None, steps: Array, *, middle: int, fraction_bits: int
    ) -> None:
        """One piece of `quantizer.dequantize_sum`; `taken` has 2^16 values, one a word."""
        count = total.size
        self._calls["lepton_dequantize"](
            _at(total, np.int64, count),
            _at(words, np.uint16, count) if words is not None else None,
            _at(taken, np.int64, 2**16) if taken is not None and words is not None else None,
            count,
            middle,
            fraction_bits,
            _at(steps, np.float64, count),
        )

    def gaussians(self, words: Array, values: Array, deviation: float) -> None:
        """Independent Gaussians from as many uniform words, an even number: `noise.SecretStream.gaussian`."""
        if words.size % 2:
            raise CodecError("Gaussians come in pairs", expected="an even number", got=str(words.size))
        self._calls["lepton_gaussians"](
            _at(words, np.uint64, words.size), words.size // 2, deviation, _at(values, np.float64, words.size)
        )

    def descend(self, words: Array, total: Array, weights: Array, *, deviation: float, rate: float) -> None:
        """`noise.SecretStream.descend` for as many weights as words, or one less."""
        self._calls["lepton_descend"](
            _at(words, np.uint64, 2 * ((weights.size + 1) // 2)),
            deviation,
            _at(total, np.float64, weights.size),
            weights.size,
            rate,
            _at(weights, np.float32, weights.size),
        )

    def add_outer_squares(
        self, inputs: Tensor, gradients: Tensor, squares: Tensor, *, weight: bool, bias: bool
    ) -> None:
        """Adds squared norms of each row's gradient of a Linear layer's weight and bias to `squares`, (rows,) float64.

        inputs: (rows, width), gradients: (rows, outputs), float32.
        """
        (rows, width), (_, outputs) = inputs.shape, gradients.shape
        self._calls["lepton_add_outer_squares"](
            _within(inputs, 4, (rows, width)),
            _within(gradients, 4, (rows, outputs)),
            rows,
            width,
            outputs,
            weight,
            bias,
            _within(squares, 8, (rows,)),
        )

    def add_masked_squares(self, inputs: Tensor, gradients: Tensor, mask: Array, squares: Tensor) -> None:
        """As `add_outer_squares` for a weight of which some values count: mask, (outputs * width,), bool."""
        (rows, width), (_, outputs) = inputs.shape, gradients.shape
        self._calls["lepton_add_masked_squares"](
            _within(inputs, 4, (rows, width)),
            _within(gradients, 4, (rows, outputs)),
            _at(mask, np.bool_, outputs * width),
            rows,
            width,
            outputs,
            _within(squares, 8, (rows,)),
        )

    def add_outer(
        self, inputs: Tensor, gradients: Tensor, factors: Array, *, weight: Array | None, bias: Array | None
    ) -> None:
        """Adds the rows' gradients of a Linear layer's weight and bias, each times its factor; float64.

        inputs: (rows, width), gradients: (rows, outputs), float32; factors: (rows,), weight: (outputs * width,) and
        bias: (outputs,), float64.
        """
        (rows, width), (_, outputs) = inputs.shape, gradients.shape
        self._calls["lepton_add_outer"](
            _within(inputs, 4, (rows, width)),
            _within(gradients, 4, (rows, outputs)),
            _at(factors, np.float64, rows),
            rows,
            width,
            outputs,
            None if weight is None else _at(weight, np.float64, outputs * width),
            None if bias is None else _at(bias, np.float64, outputs),
        )

    def _call_mixing(self, name: str, arrays: tuple[Array, Array, Array, Array], side: int) -> None:
        source, signs, second_signs, target = arrays
        columns, row = _columns(source), np.empty(source.shape[1], dtype=source.dtype)
        if side not in {4, 16} or columns < side:
            raise CodecError("columns that cannot be mixed so", expected="4 or 16, of as many columns", got=str(side))
        self._calls[f"{name}_{_SUFFIX[source.dtype]}"](
            _at(source, source.dtype, source.size),
            _at(signs, np.uint64, source.size // 64),
            _at(second_signs, np.uint64, source.size // 64),
            _at(target, source.dtype, source.size),
            _at(row, source.dtype, columns),
            columns,
            side,
        )


@lru_cache(maxsize=1)
def load_kernels() -> Kernels | None:
    """The compiled loops, or None where none were built, or from other sources than these."""
    return open_kernels(_FOLDER / LIBRARY)


def open_kernels(path: Path) -> Kernels | None:
    """The loops of this library, or None if it lacks one, cannot be loaded, or was built from other sources."""
    try:
        library = ctypes.CDLL(str(path))
        library.lepton_source.restype = ctypes.c_char_p
        stale = library.lepton_source() != source_digest(_FOLDER).encode()
        return None if stale else Kernels(library)
    except (OSError, AttributeError):
        return None


def _columns(grid: Array) -> int:
    if grid.ndim != 2 or grid.shape[0] != _ROWS:
        raise CodecError("not a grid of blocks", expected=f"({_ROWS}, m)", got=str(grid.shape))
    _suffix(grid)
    return int(grid.shape[1])


def _suffix(array: Array) -> str:
    """What the loops for this float type are called by."""
    if array.dtype not in _SUFFIX:
        raise CodecError("not a grid of blocks", expected="float32 or float64", got=str(array.dtype))
    return _SUFFIX[array.dtype]


def _at(array: Array, dtype: npt.DTypeLike, size: int) -> int:
    """Where the array begins, if it is what a loop reads."""
    if array.dtype != dtype or array.size != size or not array.flags.c_contiguous:
        raise CodecError(
            "not an array a compiled loop takes",
            expected=f"{size} contiguous {np.dtype(dtype)}",
            got=f"{array.dtype} of shape {array.shape}",
        )
    return int(array.ctypes.data)


def _within(tensor: Tensor, size: int, shape: tuple[int, ...]) -> int:
    """Where the tensor begins, if it is what a loop reads: contiguous floats of so many bytes."""
    floats = tensor.is_floating_point() and tensor.element_size() == size and tensor.is_contiguous()
    if not floats or tensor.shape != shape:
        raise CodecError(
            "not a tensor a compiled loop takes",
            expected=f"contiguous floats of {size} bytes, {shape}",
            got=f"{tensor.element_size()} bytes a value, {tuple(tensor.shape)}",
        )
    return tensor.data_ptr()
