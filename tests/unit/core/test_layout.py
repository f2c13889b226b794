import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from lepton_core.errors import CodecError
from lepton_core.layout import Layout, TensorPlace, require_finite

LAYOUT = Layout((TensorPlace("weight", (2, 3)), TensorPlace("bias", (2,)), TensorPlace("step", ())))

shapes = st.lists(npst.array_shapes(min_dims=0, max_dims=3, max_side=4), max_size=5)


def make_tensors():
    return {
        "bias": np.array([7, 8], dtype=np.float32),
        "weight": np.arange(1, 7, dtype=np.float32).reshape(2, 3),
        "step": np.array(9, dtype=np.float32),
    }


def test_tensors_stand_in_the_layout_s_order_row_major():
    assert LAYOUT.length == 9
    assert LAYOUT.flatten(make_tensors()).tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9]


@given(shapes)
def test_what_is_flattened_is_unflattened_to_the_same_tensors(all_shapes):
    layout = Layout(tuple(TensorPlace(f"t{number}", shape) for number, shape in enumerate(all_shapes)))
    tensors = {
        place.name: np.random.default_rng(number).standard_normal(place.shape, dtype=np.float32)
        for number, place in enumerate(layout.places)
    }
    back = layout.unflatten(layout.flatten(tensors))
    assert list(back) == [place.name for place in layout.places]
    for name, tensor in tensors.items():
        assert back[name].shape == np.shape(tensor)
        assert np.array_equal(back[name], tensor)


def test_unflattened_tensors_are_copies():
    vector = np.zeros(9, dtype=np.float32)
    LAYOUT.unflatten(vector)["weight"][0, 0] = 5
    assert not vector.any()


def test_a_tensor_that_is_not_contiguous_is_flattened_by_its_values():
    tensors = make_tensors()
    tensors["weight"] = np.ascontiguousarray(tensors["weight"].T).T
    assert LAYOUT.flatten(tensors).tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_tensors_that_do_not_fit_are_refused(change):
    tensors = make_tensors()
    if change == "missing":
        del tensors["bias"]
    elif change == "unknown":
        tensors["extra"] = np.zeros(1, dtype=np.float32)
    else:
        tensors["weight"] = tensors["weight"].T
    with pytest.raises(CodecError):
        LAYOUT.flatten(tensors)


@pytest.mark.parametrize("shape", [(8,), (10,), (9, 1), (0,)])
def test_a_vector_of_another_length_is_refused(shape):
    with pytest.raises(CodecError, match="another length"):
        LAYOUT.unflatten(np.zeros(shape, dtype=np.float32))


def test_digest_tells_names_shapes_and_order_apart():
    places = LAYOUT.places
    others = [
        Layout(places[::-1]),
        Layout((TensorPlace("weights", (2, 3)), *places[1:])),
        Layout((TensorPlace("weight", (3, 2)), *places[1:])),
        Layout(places[:2]),
    ]
    digests = {layout.digest() for layout in (LAYOUT, *others)}
    assert len(digests) == 5
    assert Layout(tuple(places)).digest() == LAYOUT.digest()


def test_vectors_that_are_not_finite_are_counted_and_refused():
    vector = np.array([1, np.nan, np.inf, -np.inf, 3e38], dtype=np.float32)
    with pytest.raises(CodecError, match="3 NaN or Inf"):
        require_finite(vector, "update")
    assert require_finite(vector[:1], "update") is not None
