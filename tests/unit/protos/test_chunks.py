"""Chunks put together and taken apart by hand are the messages that protobuf writes and reads."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from lepton_protos.chunks import encode_chunk, split_chunk
from lepton_protos.v1 import transfer_pb2 as pb

headers = st.one_of(
    st.none(),
    st.builds(
        pb.UploadHeader,
        digest=st.text(max_size=64),
        size=st.integers(0, 2**64 - 1),
        job=st.text(max_size=63),
        round=st.integers(0, 2**63),
    ),
)


@given(headers, st.integers(0, 2**64 - 1), st.binary(max_size=300))
def test_a_chunk_is_read_by_protobuf_and_one_of_protobuf_s_is_taken_apart(header, offset, data):
    head = pb.UploadChunk(header=header, offset=offset)
    whole = pb.UploadChunk(header=header, offset=offset, data=data)
    assert pb.UploadChunk.FromString(encode_chunk(head, data)) == whole
    for raw in (encode_chunk(head, memoryview(data)), whole.SerializeToString()):
        message, found = split_chunk(pb.UploadChunk, raw)
        assert (message, bytes(found)) == (head, data)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_as_protobuf_reads_them_or_refused(raw):
    try:
        whole = pb.DownloadChunk.FromString(raw)
    except DecodeError:
        whole = None
    try:
        message, data = split_chunk(pb.DownloadChunk, raw)
    except DecodeError:
        assert whole is None
        return
    assert whole is not None
    message.data = bytes(data)
    assert message.SerializeToString(deterministic=True) == whole.SerializeToString(deterministic=True)


def test_a_chunk_whose_data_come_first_or_twice_is_understood():
    first = b"\x1a\x03abc" + pb.DownloadChunk(offset=7, size=9).SerializeToString()
    message, data = split_chunk(pb.DownloadChunk, first)
    assert (message.offset, message.size, bytes(data)) == (7, 9, b"abc")
    assert bytes(split_chunk(pb.DownloadChunk, b"\x1a\x01a\x1a\x02bc")[1]) == b"bc"


@pytest.mark.parametrize(
    "raw", [b"\x1a\xff\xff\xff\xff\x7fabc", b"\x1a\x05abc", b"\x0a\xff\x01", b"\x1a" + b"\xff" * 20]
)
def test_lengths_beyond_the_message_are_refused(raw):
    with pytest.raises(DecodeError):
        split_chunk(pb.UploadChunk, raw)
