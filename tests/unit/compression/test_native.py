"""The compiled loops compute what numpy does: the same bits wherever a decoder must agree with every other."""

import shutil

import numpy as np
import pytest
import torch

from lepton_compression import native
from lepton_compression.native.build import LIBRARY, build_library
from lepton_compression.update import decode_sum, derive_dither, derive_plan, encode, quantizer, rotation
from lepton_compression.update.quantizer import dequantize_sum, quantize
from lepton_compression.update.rotation import Rotation
from lepton_compression.update.streams import dither_words, keystream_uint16
from lepton_core.errors import CodecError
from lepton_core.ports import SystemRandomness

SEED = bytes(range(32))
BLOCKS = [1, 3, 4, 5, 15, 16, 17, 33, 100, 513]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The installation's, if it was built from these very sources; else one built now."""
    installed = native._FOLDER / LIBRARY
    if native.open_kernels(installed) is not None:
        return installed
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("this machine has no C compiler, so there is nothing to compare numpy with")
    target = tmp_path_factory.mktemp("native") / LIBRARY
    assert build_library(native._FOLDER, target) is None
    return target


@pytest.fixture(scope="module")
def kernels(library):
    opened = native.open_kernels(library)
    assert opened is not None
    return opened


@pytest.fixture
def either(kernels, monkeypatch):
    """Call something with the compiled loops, and again in numpy."""

    def run(function):
        found = []
        for chosen in (kernels, None):
            monkeypatch.setattr(rotation, "load_kernels", lambda chosen=chosen: chosen)
            monkeypatch.setattr(quantizer, "load_kernels", lambda chosen=chosen: chosen)
            found.append(function())
        return found

    return run


@pytest.mark.parametrize("tail", [0, 16, 1808, 4080])
@pytest.mark.parametrize("blocks", [0, *BLOCKS])
def test_integers_rotate_to_the_same_bits_in_both(either, blocks, tail):
    length = 4096 * blocks + tail or 48
    steps = np.random.default_rng(blocks).integers(-(2**33), 2**33, length).astype(np.float64)
    turned = Rotation(SEED, len(steps))
    for function in (turned.forward, turned.inverse):
        compiled, plain = either(lambda function=function: function(steps))
        assert np.array_equal(compiled, plain)


@pytest.mark.parametrize("blocks", BLOCKS)
def test_floats_rotate_to_the_same_values_in_both(either, blocks):
    vector = np.random.default_rng(blocks).standard_normal(4096 * blocks + 4080).astype(np.float32)
    turned = Rotation(SEED, len(vector))
    for function in (turned.forward, turned.inverse):
        compiled, plain = either(lambda function=function: function(vector))
        assert np.allclose(compiled, plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize("profile", ["exact", "default", "lean", "tiny"])
@pytest.mark.parametrize("dithered", [True, False])
def test_values_round_to_the_same_lanes_in_both(either, profile, dithered):
    plan = derive_plan(
        model_length=150_000,
        kept_fraction=1.0,
        profile=profile,
        update_norm=1.0,
        members_max=20,
        dithered=dithered,
    )
    rotated = np.random.default_rng(0).standard_t(2, plan.padded_length).astype(np.float32) * np.float32(plan.scale)
    rotated[:5] = [0.0, plan.scale, -plan.scale, 1e9, -1e9]

    def round_once():
        words = keystream_uint16(SEED, plan.padded_length)
        return quantize(rotated, plan, words, offset=54_321 if dithered else 0)

    compiled, plain = either(round_once)
    assert np.array_equal(compiled.lanes, plain.lanes)
    assert compiled.saturated == plain.saturated > 5
    assert compiled.squared_error == pytest.approx(plain.squared_error, rel=1e-6)


@pytest.mark.parametrize("dithered", [True, False])
def test_sums_become_the_same_steps_in_both(either, dithered):
    plan = derive_plan(
        model_length=150_000,
        kept_fraction=1.0,
        profile="exact",
        update_norm=1.0,
        members_max=3,
        dithered=dithered,
    )
    total = np.random.default_rng(0).integers(0, 3 * plan.max_value, plan.padded_length)
    compiled, plain = either(
        lambda: dequantize_sum(
            total, 3, plan, dither_words(SEED, plan.padded_length) if dithered else None, [7, 77, 65_535] * dithered
        )
    )
    assert np.array_equal(compiled, plain)


def test_everybody_decodes_the_same_mean_with_either(either):
    plan = derive_plan(
        model_length=100_003, kept_fraction=0.9, profile="default", update_norm=1.0, members_max=5, dithered=True
    )
    dithers = [derive_dither(SEED, bytes([member])) for member in range(3)]
    updates = np.random.default_rng(0).standard_normal((3, plan.model_length)).astype(np.float32)
    total = sum(
        encode(update, plan, SEED, SystemRandomness(), dither=dither)
        for update, dither in zip(updates, dithers, strict=True)
    )
    compiled, plain = either(lambda: decode_sum(total, 3, plan, SEED, dithers=dithers))
    assert np.array_equal(compiled.view(np.uint32), plain.view(np.uint32))


def test_a_library_of_other_sources_is_not_used(library, tmp_path):
    stale = tmp_path / LIBRARY
    built_from = native.source_digest(native._FOLDER).encode()
    content = library.read_bytes()
    assert built_from in content
    stale.write_bytes(content.replace(built_from, built_from[::-1]))
    assert native.open_kernels(stale) is None


def test_what_is_no_library_is_not_used(tmp_path):
    assert native.open_kernels(tmp_path / LIBRARY) is None
    (tmp_path / LIBRARY).write_bytes(b"no library")
    assert native.open_kernels(tmp_path / LIBRARY) is None


@pytest.mark.skipif(shutil.which("clang") is None, reason="this machine has no Clang")
def test_clang_builds_a_library_whose_loops_are_all_found(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "clang")
    assert build_library(native._FOLDER, tmp_path / LIBRARY) is None
    assert native.open_kernels(tmp_path / LIBRARY) is not None


def test_a_library_that_lacks_a_loop_is_not_used(library, monkeypatch):
    monkeypatch.setitem(native._ARGUMENTS, "lepton_missing", ())
    assert native.open_kernels(library) is None


@pytest.mark.parametrize("compiler", ["false", "/nowhere/cc -O1"])
def test_a_compiler_that_fails_leaves_nothing_behind(tmp_path, monkeypatch, compiler):
    monkeypatch.setenv("CC", compiler)
    failure = build_library(native._FOLDER, tmp_path / LIBRARY)
    assert failure is not None
    assert "failed" in failure
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module", params=["as this processor can", "without fused additions"])
def drawing(request, kernels, tmp_path_factory):
    """The loops that draw noise, of either kind that a processor is given."""
    if request.param == "as this processor can":
        return kernels
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        pytest.skip("this machine has no C compiler")
    target = tmp_path_factory.mktemp("plain") / LIBRARY
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CC", f"{compiler} -DFUSED=0")
        assert build_library(native._FOLDER, target) is None
    return native.open_kernels(target)


def test_gaussians_are_those_of_box_and_muller_at_every_corner(drawing):
    corners = np.array([0, 1, 2**12, 2**61, 2**62 - 1, 2**62, 2**63, 3 * 2**62, 7 * 2**61, 2**64 - 1], dtype=np.uint64)
    random = np.random.default_rng(4).integers(0, 2**64, 20_000, dtype=np.uint64)
    first = np.concatenate([np.repeat(corners, len(corners)), random[:10_000]])
    second = np.concatenate([np.tile(corners, len(corners)), random[10_000:]])
    for pairs in (1, 3, len(first)):
        values = np.empty(2 * pairs)
        drawing.gaussians(np.concatenate([first[:pairs], second[:pairs]]), values, 1.5)
        above = 1.0 - (first[:pairs] >> np.uint64(12)) * 2.0**-52  # in (0, 1]
        turns = (second[:pairs] >> np.uint64(12)) * 2.0**-52
        radius = 1.5 * np.sqrt(-2.0 * np.log(above))
        expected = np.concatenate([radius * np.cos(2 * np.pi * turns), radius * np.sin(2 * np.pi * turns)])
        assert np.isfinite(values).all()
        assert np.allclose(values, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("count", [1, 2, 7, 1000, 20_001])
def test_a_step_subtracts_the_sum_and_the_same_gaussians_from_each_weight(drawing, count):
    random = np.random.default_rng(count)
    words = random.integers(0, 2**64, count + count % 2, dtype=np.uint64)
    total, weights = random.normal(0, 10, count), random.normal(0, 1, count).astype(np.float32)
    values = np.empty(len(words))
    drawing.gaussians(words, values, 2.5)
    expected = weights - ((total + values[:count]) * 0.125).astype(np.float32)
    drawing.descend(words, total, weights, deviation=2.5, rate=0.125)
    assert np.allclose(weights, expected, rtol=0, atol=1e-6)


def test_words_for_another_number_of_weights_are_refused(kernels):
    with pytest.raises(CodecError, match="compiled loop"):
        kernels.descend(np.zeros(2, dtype=np.uint64), np.zeros(3), np.zeros(3, dtype=np.float32), deviation=1, rate=1)


#: Rows, inputs and outputs of layers; those of the last two are beyond what is taken at once.
LAYERS = [
    (1, 1, 1),
    (3, 7, 8),
    (64, 100, 256),
    (5, 9, 1),
    (0, 4, 4),
    (6, 8, 6),
    (129, 17, 75),
    (300, 3, 145),
    (70, 300, 5),
]


def layer_rows(rows, width, outputs):
    generator = torch.Generator().manual_seed(rows)
    return [torch.randn(rows, each, generator=generator) for each in (width, outputs)]


@pytest.mark.parametrize("shape", LAYERS)
@pytest.mark.parametrize(("weight", "bias"), [(True, True), (True, False), (False, True)])
def test_squared_norms_are_those_of_float64(kernels, shape, weight, bias):
    inputs, gradients = layer_rows(*shape)
    of_inputs, of_gradients = (each.double().square().sum(dim=1) for each in (inputs, gradients))
    squares = torch.ones(len(inputs), dtype=torch.float64)
    kernels.add_outer_squares(inputs, gradients, squares, weight=weight, bias=bias)
    assert torch.allclose(squares, 1.0 + of_gradients * (weight * of_inputs + bias), rtol=1e-13)


@pytest.mark.parametrize("shape", LAYERS)
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_squared_norms_over_some_values_are_those_of_float64(kernels, shape, share):
    inputs, gradients = layer_rows(*shape)
    mask = np.random.default_rng(2).random(inputs.shape[1] * gradients.shape[1]) < share
    squares = torch.ones(len(inputs), dtype=torch.float64)
    kernels.add_masked_squares(inputs, gradients, mask, squares)
    outer = torch.einsum("ij,ik->ijk", gradients.double(), inputs.double()).flatten(1)
    assert torch.allclose(squares, 1.0 + (outer.square() * torch.from_numpy(mask)).sum(dim=1), rtol=1e-12)


@pytest.mark.parametrize("shape", LAYERS)
@pytest.mark.parametrize(("weight", "bias"), [(True, True), (True, False), (False, True)])
def test_sums_of_scaled_outer_products_are_those_of_float64(drawing, shape, weight, bias):
    inputs, gradients = layer_rows(*shape)
    factors = np.random.default_rng(1).random(len(inputs))
    scaled = gradients.double() * torch.from_numpy(factors).unsqueeze(1)
    around = np.full(1 + inputs.shape[1] * gradients.shape[1] + 1, 7.0)  # nothing beside the sum may change
    sums, of_bias = around[1:-1], np.full(gradients.shape[1], 7.0)
    drawing.add_outer(inputs, gradients, factors, weight=sums if weight else None, bias=of_bias if bias else None)
    expected = 7.0 + weight * (scaled.t() @ inputs.double()).reshape(-1)
    assert np.allclose(sums, expected.numpy(), rtol=1e-12, atol=1e-11)
    assert around[[0, -1]].tolist() == [7.0, 7.0]
    assert np.allclose(of_bias, 7.0 + bias * scaled.sum(dim=0).numpy(), rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 3e38])
def test_a_square_that_is_not_finite_or_beyond_float32_is_its_row_s_alone(kernels, value):
    inputs, gradients, squares = torch.ones(3, 9), torch.ones(3, 2), torch.zeros(3, dtype=torch.float64)
    inputs[1, 4] = value
    kernels.add_outer_squares(inputs, gradients, squares, weight=True, bias=True)
    assert squares[[0, 2]].tolist() == [20.0, 20.0]
    assert torch.equal(squares[1], 2 * (8 + inputs[1, 4].double() ** 2) + 2) or bool(squares[1].isnan())
    assert bool(squares[1].isfinite()) == (value == 3e38)


def test_tensors_of_another_shape_or_kind_never_reach_a_compiled_loop(kernels):
    right = {
        "inputs": torch.zeros(3, 4),
        "gradients": torch.zeros(3, 2),
        "squares": torch.zeros(3, dtype=torch.float64),
    }
    for wrong in (
        {"inputs": torch.zeros(4, 3).t()},
        {"inputs": torch.zeros(2, 4)},
        {"gradients": torch.zeros(4, 2)},
        {"gradients": torch.zeros(3, 2, dtype=torch.float64)},
        {"gradients": torch.zeros(3, 2, dtype=torch.int32)},
        {"squares": torch.zeros(3)},
        {"squares": torch.zeros(2, dtype=torch.float64)},
    ):
        with pytest.raises(CodecError, match="compiled loop"):
            kernels.add_outer_squares(**(right | wrong), weight=True, bias=True)
    for mask in (np.zeros(7, dtype=np.bool_), np.zeros(8), np.zeros(8, dtype=np.uint8)):
        with pytest.raises(CodecError, match="compiled loop"):
            kernels.add_masked_squares(right["inputs"], right["gradients"], mask, right["squares"])
    sums = {"weight": np.zeros(8), "bias": np.zeros(2)}
    for wrong in (
        {"inputs": torch.zeros(4, 4)},
        {"factors": np.zeros(2)},
        {"factors": np.zeros(3, dtype=np.float32)},
        {"weight": np.zeros(7)},
        {"weight": np.zeros(16)[::2]},
        {"bias": np.zeros(3)},
    ):
        given = {"inputs": torch.zeros(3, 4), "gradients": torch.zeros(3, 2), "factors": np.zeros(3)} | sums | wrong
        with pytest.raises(CodecError, match="compiled loop"):
            kernels.add_outer(**given)


def test_an_odd_number_of_gaussians_is_refused(kernels):
    with pytest.raises(CodecError, match="pairs"):
        kernels.gaussians(np.zeros(3, dtype=np.uint64), np.zeros(3), 1.0)


def test_arrays_of_another_shape_never_reach_a_compiled_loop(kernels):
    grid, signs = np.zeros((4096, 16), dtype=np.float32), np.zeros(64 * 16, dtype=np.uint64)
    with pytest.raises(CodecError, match="grid"):
        kernels.transform(grid[:4095])
    with pytest.raises(CodecError, match="grid"):
        kernels.transform(grid.astype(np.float16))
    with pytest.raises(CodecError, match="compiled loop"):
        kernels.transform(grid[:, :8])
    with pytest.raises(CodecError, match="compiled loop"):
        kernels.mix(grid, signs[1:], signs, grid.copy(), 16)
    with pytest.raises(CodecError, match="compiled loop"):
        kernels.turn(grid, signs[1:], grid.copy())
    with pytest.raises(CodecError, match="compiled loop"):
        kernels.turn(grid, signs, grid[1:].copy())
    with pytest.raises(CodecError, match="grid"):
        kernels.turn(grid.astype(np.float16), signs, grid.astype(np.float16))
    for tail in (np.zeros(24, dtype=np.float32), np.zeros(4096, dtype=np.float32), np.zeros((2, 16))):
        with pytest.raises(CodecError, match="tail"):
            kernels.blocks(tail)
    with pytest.raises(CodecError, match="grid"):
        kernels.blocks(np.zeros(16, dtype=np.int64))
    with pytest.raises(CodecError, match="mixed"):
        kernels.mix(grid[:, :8].copy(), signs[: 64 * 8], signs[: 64 * 8], grid[:, :8].copy(), 16)
