"""A model's bytes are those that the safetensors library writes, whatever the names and shapes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from lepton_core.errors import CodecError
from lepton_core.layout import Layout, TensorPlace
from lepton_pool.weights import decode_weights, encode_weights

NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)
SHAPES = st.lists(st.integers(1, 5), max_size=4).map(tuple)


@given(st.dictionaries(NAMES.filter(lambda name: name != "__metadata__"), SHAPES, min_size=1, max_size=8))
def test_a_file_is_what_the_library_writes_and_reads(shapes: dict[str, tuple[int, ...]]) -> None:
    layout = Layout(tuple(TensorPlace(name, shape) for name, shape in shapes.items()))
    vector = np.arange(sum(math.prod(shape) for shape in shapes.values()), dtype=np.float32)
    data = encode_weights(layout, vector)
    assert data == save(layout.unflatten(vector))
    assert np.array_equal(decode_weights(layout, data), vector)


def test_a_vector_in_another_order_of_memory_or_bytes_gives_the_same_file() -> None:
    layout = Layout((TensorPlace("b", (3,)), TensorPlace("a", (2, 2))))
    vector = np.arange(7, dtype=np.float32)
    expected = encode_weights(layout, vector)
    assert encode_weights(layout, np.repeat(vector, 2)[::2]) == expected
    assert encode_weights(layout, vector.astype(">f4")) == expected


@pytest.mark.parametrize(
    "vector", [np.zeros(6, np.float32), np.zeros(8, np.float32), np.array([0.0] * 6 + [np.nan], np.float32)]
)
def test_a_vector_that_is_no_model_is_refused(vector: np.ndarray) -> None:
    with pytest.raises(CodecError):
        encode_weights(Layout((TensorPlace("b", (3,)), TensorPlace("a", (2, 2)))), vector)
