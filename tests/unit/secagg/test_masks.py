"""Masks: the standard's keystream, any slice alone, and words that come back."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR

from lepton_core.errors import CodecError
from lepton_core.ids import MemberId
from lepton_core.secagg.agreement import Secret
from lepton_core.secagg.masks import (
    MaskStream,
    add_mask,
    add_masks,
    add_streams,
    negated,
    pair_streams,
    self_streams,
    split_groups,
)
from lepton_core.secagg.payload import encode_payload, parse_payload, payload_digest
from lepton_core.secagg.terms import LaneGroup
from lepton_core.secagg.unmask import SLICE_WORDS, UnmaskPlan, sum_words, unmask, unmask_slice
from tests.protocol.seeded import make_terms

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "secagg" / "known_answers.json").read_text())
KEY = Secret(bytes(range(32)))
A, B = MemberId(b"a" * 16), MemberId(b"b" * 16)


def mask(length, start=0, key=KEY):
    words = np.zeros(length, dtype=np.uint64)
    add_mask(words, key, 1, start)
    return words


def test_a_mask_is_the_keystream_of_nist_sp_800_38a():
    known = {name: value for name, value in VECTORS["aes_256_ctr"].items() if name != "source"}
    plaintext, ciphertext = bytes.fromhex(known["plaintext"]), bytes.fromhex(known["ciphertext"])
    keystream = bytes(left ^ right for left, right in zip(plaintext, ciphertext, strict=True))
    words = mask(8, start=2 * int(known["counter"], 16), key=Secret(bytes.fromhex(known["key"])))
    assert words.astype("<u8").tobytes() == keystream


def test_a_mask_longer_than_the_buffer_is_one_keystream():
    length = 512 * 1024 // 8 * 2 + 13
    encryptor = Cipher(AES256(KEY.value), CTR(bytes(16))).encryptor()
    assert mask(length).astype("<u8").tobytes() == encryptor.update(bytes(8 * length))


@pytest.mark.parametrize("start", [0, 1, 2, 3, 65_535, 65_536, 65_537, 131_071])
def test_every_slice_of_a_mask_can_be_made_alone(start):
    whole = mask(140_000)
    np.testing.assert_array_equal(mask(501, start), whole[start : start + 501])


def test_adding_and_subtracting_a_mask_gives_the_words_back():
    words = np.array([0, 1, 2**64 - 1, 2**63], dtype=np.uint64)
    masked = words.copy()
    add_mask(masked, KEY, 1)
    assert (masked != words).all()
    add_mask(masked, KEY, -1)
    np.testing.assert_array_equal(masked, words)


def test_no_words_need_no_mask():
    add_mask(np.zeros(0, dtype=np.uint64), KEY, 1)


def test_the_two_masks_of_a_pair_cancel_in_every_lane_group():
    terms = make_terms((LaneGroup(9, 16), LaneGroup(5, 21)))
    words = np.zeros(terms.words, dtype=np.uint64)
    add_streams(words, pair_streams(KEY, b"sid", A, B, terms), terms)
    assert (words != 0).all()
    add_streams(words, pair_streams(KEY, b"sid", B, A, terms), terms)
    assert not words.any()


def test_keys_differ_by_round_kind_member_group_and_width():
    terms = make_terms((LaneGroup(9, 16), LaneGroup(9, 16), LaneGroup(9, 21)))
    wider = make_terms((LaneGroup(9, 21), LaneGroup(9, 21), LaneGroup(9, 16)))
    streams = [
        *pair_streams(KEY, b"sid", A, B, terms),
        *pair_streams(KEY, b"sid", A, B, wider),
        *pair_streams(KEY, b"other", A, B, terms),
        *pair_streams(KEY, b"sid", A, MemberId(b"c" * 16), terms),
        *self_streams(KEY, b"sid", A, terms),
        *self_streams(KEY, b"sid", B, terms),
        *self_streams(KEY, b"other", A, terms),
    ]
    assert len({stream.key.value for stream in streams}) == len(streams)
    assert "redacted" in repr(streams[0])
    assert repr(streams[0].key.value) not in repr(streams[0])


def test_unmasking_takes_away_what_was_added_whole_or_in_slices():
    terms = make_terms((LaneGroup(1000, 16), LaneGroup(77, 21)))
    plain = np.arange(terms.words, dtype=np.uint64)
    streams = self_streams(KEY, b"sid", A, terms) + pair_streams(KEY, b"sid", B, A, terms)
    total = plain.copy()
    add_streams(total, streams, terms)
    plan = UnmaskPlan(negated(streams), 1, 1, 1)
    before = total.copy()
    np.testing.assert_array_equal(np.concatenate(unmask(total, plan, terms)), plain)
    np.testing.assert_array_equal(total, before)
    for index, (words, expected) in enumerate(zip(split_groups(total, terms), split_groups(plain, terms), strict=True)):
        for start in range(0, len(words), 37):
            unmask_slice(words[start : start + 37], plan, index, start)
        np.testing.assert_array_equal(words, expected)


def test_the_sum_wraps_and_refuses_another_length():
    terms = make_terms((LaneGroup(8, 16),))
    top = np.full(2, 2**64 - 1, dtype=np.uint64)
    np.testing.assert_array_equal(sum_words([top, np.ones(2, dtype=np.uint64)], terms), np.zeros(2, dtype=np.uint64))
    with pytest.raises(CodecError):
        sum_words([top, np.ones(3, dtype=np.uint64)], terms)
    with pytest.raises(CodecError):
        sum_words([top.astype(np.int64)], terms)


@pytest.mark.parametrize(
    "words",
    [
        np.zeros(2),
        np.zeros((2, 2), dtype=np.uint64),
        np.zeros(2, dtype=np.int64),
        np.frombuffer(bytes(16), dtype=np.uint64),
    ],
)
def test_masks_are_added_to_writable_words_only(words):
    with pytest.raises(CodecError):
        add_mask(words, KEY, 1)


def test_a_payload_is_little_endian_words_and_nothing_else():
    terms = make_terms((LaneGroup(8, 16),))
    words = np.array([1, 2**64 - 2], dtype=np.uint64)
    payload = encode_payload(words)
    assert payload == bytes.fromhex("0100000000000000feffffffffffffff")
    np.testing.assert_array_equal(parse_payload(payload, terms), words)
    assert payload_digest(words) == hashlib.sha256(payload).digest()
    for wrong in (payload[:-1], payload + b"\0", b""):
        with pytest.raises(CodecError, match="wrong length"):
            parse_payload(wrong, terms)


def test_unmasking_on_threads_and_in_any_order_is_the_serial_result_to_the_bit():
    groups = (LaneGroup(3 * 4 * SLICE_WORDS + 777, 16), LaneGroup(5, 32))
    terms = make_terms(groups)
    streams = tuple(
        MaskStream(index, Secret(bytes([seed]) * 32), sign) for index in (0, 1) for seed, sign in ((1, 1), (2, -1))
    )
    plan = UnmaskPlan(streams, 4, 0, 0)
    total = np.random.default_rng(5).integers(0, 2**64, size=terms.words, dtype=np.uint64)
    before = total.copy()
    serial = unmask(total, plan, terms)
    with ThreadPoolExecutor(3) as pool:
        threaded = unmask(total, plan, terms, run=pool.map)
    backwards = unmask(total, plan, terms, run=lambda work, pieces: [work(piece) for piece in list(pieces)[::-1]])
    for one, two, three in zip(serial, threaded, backwards, strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, three)
    np.testing.assert_array_equal(total, before)


def test_more_masks_than_are_made_at_a_time_are_all_added():
    keys = [(Secret(index.to_bytes(32, "big")), 1 if index % 3 else -1) for index in range(1200)]
    together, one_by_one = np.zeros(5, dtype=np.uint64), np.zeros(5, dtype=np.uint64)
    add_masks(together, keys, start_word=3)
    for key, sign in keys:
        add_mask(one_by_one, key, sign, 3)
    np.testing.assert_array_equal(together, one_by_one)
