"""Frames survive the pipe, and what is not a frame is refused."""

import asyncio
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lepton_core.errors import FaultError, InputError
from lepton_pool.frames import MOST_HEADER_BYTES, Frame, bytes_array, encode, read_frame, receive_frame, write_frame

ARRAYS = st.sampled_from(["uint8", "int32", "int64", "uint64", "float32", "float64"]).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
FRAMES = st.builds(
    Frame,
    st.dictionaries(st.text(max_size=5), st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=9))),
    st.dictionaries(st.text(max_size=5), ARRAYS, max_size=3),
)


def same(one, other):
    assert dict(one.values) == dict(other.values)
    assert list(one.arrays) == list(other.arrays)
    for name, array in one.arrays.items():
        assert other.arrays[name].dtype == array.dtype
        assert other.arrays[name].shape == array.shape
        assert other.arrays[name].tobytes() == array.tobytes()
        assert other.arrays[name].flags.writeable


@given(st.lists(FRAMES, max_size=3))
def test_frames_come_out_of_a_stream_as_they_went_in(frames):
    stream = io.BytesIO()
    for frame in frames:
        write_frame(stream, frame)
    stream.seek(0)
    for frame in frames:
        same(frame, read_frame(stream))
    assert read_frame(stream) is None


@given(FRAMES)
def test_an_asyncio_stream_reads_the_same(frame):
    async def read():
        reader = asyncio.StreamReader()
        reader.feed_data(b"".join(encode(frame)))
        reader.feed_eof()
        return await receive_frame(reader), await receive_frame(reader)

    got, end = asyncio.run(read())
    same(frame, got)
    assert end is None


WHOLE = b"".join(encode(Frame({"a": 1}, {"x": np.arange(5, dtype=np.float32)})))


@pytest.mark.parametrize("length", range(1, len(WHOLE)))
def test_a_stream_cut_within_a_frame_is_a_fault(length):
    with pytest.raises(FaultError):
        read_frame(io.BytesIO(WHOLE[:length]))


async def test_an_asyncio_stream_cut_within_a_frame_is_a_fault():
    for length in (2, 10, len(WHOLE) - 1):
        reader = asyncio.StreamReader()
        reader.feed_data(WHOLE[:length])
        reader.feed_eof()
        with pytest.raises(FaultError):
            await receive_frame(reader)


def framed(header):
    return len(header).to_bytes(4, "big") + header


@pytest.mark.parametrize(
    "data",
    [
        (MOST_HEADER_BYTES + 1).to_bytes(4, "big") + b"x" * 100,
        framed(b"hello"),
        framed(b"[]"),
        framed(b"{}"),
        framed(b"\xff\xfe"),
        framed(b'{"values":{},"arrays":[["x","object",[1]]]}'),
        framed(b'{"values":{},"arrays":[["x","float32",[-1]]]}'),
        framed(b'{"values":{},"arrays":[[7,"float32",[1]]]}'),
        framed(b'{"values":{},"arrays":[["x","float64",[99999999999999]]]}'),
        pytest.param(framed(b"[" * 100_000), id="deep"),
        b"Traceback (most recent call last):",
    ],
)
def test_what_is_not_a_frame_is_a_fault_before_anything_is_allocated(data):
    with pytest.raises(FaultError):
        read_frame(io.BytesIO(data))


def test_what_cannot_travel_is_refused_at_the_sender():
    with pytest.raises(InputError, match="does not travel"):
        encode(Frame({}, {"x": np.array([object()])}))
    with pytest.raises(InputError, match="JSON"):
        encode(Frame({"x": float("nan")}))
    with pytest.raises(InputError, match="JSON"):
        encode(Frame({"x": object()}))
    with pytest.raises(InputError, match="too large"):
        encode(Frame({"x": "a" * MOST_HEADER_BYTES}))


def test_a_frame_without_the_array_asked_for_is_refused():
    frame = Frame({}, {"x": bytes_array(b"abc")})
    assert frame.array("x", np.uint8).tobytes() == b"abc"
    with pytest.raises(InputError, match="float32"):
        frame.array("x", np.float32)
    with pytest.raises(InputError, match="nothing"):
        frame.array("y", np.uint8)
