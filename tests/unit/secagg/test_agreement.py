"""Key agreement, sealing and signatures, with the known answers of the standards they follow."""

import hashlib
import hmac
import json
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from lepton_core.errors import IdentityError, InputError, PeerViolation
from lepton_core.identity import IdentityKey, fingerprint, require_signature
from lepton_core.ids import MemberId
from lepton_core.secagg.agreement import (
    Secret,
    commit_seed,
    derive_key,
    derive_mask_private,
    draw_round_secrets,
    exchange,
    open_sealed,
    public_key,
    require_usable_key,
    seal,
)
from lepton_core.secagg.shamir import PRIME
from lepton_core.secagg.terms import labelled_hash
from tests.protocol.seeded import SeededRandomness

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "secagg" / "known_answers.json").read_text())
A, B = MemberId(b"a" * 16), MemberId(b"b" * 16)
SETUP = b"s" * 32
# Points whose order divides 8 on the curve or its twist, 0 and 1 among them, and their unreduced forms.
LOW_ORDER = (
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
)


def unhex(name):
    return {key: bytes.fromhex(value) for key, value in VECTORS[name].items() if key != "source"}


def test_key_agreement_gives_the_answer_of_rfc_7748():
    known = unhex("x25519")
    alice, bob = Secret(known["alice_private"]), Secret(known["bob_private"])
    assert public_key(alice) == known["alice_public"]
    assert public_key(bob) == known["bob_public"]
    assert exchange(alice, known["bob_public"], who="bob") == Secret(known["shared"])
    assert exchange(bob, known["alice_public"], who="alice") == Secret(known["shared"])


def test_key_agreement_gives_what_openssl_gives():
    for number in range(50):
        randomness = SeededRandomness(f"pair {number}")
        private, public = Secret(randomness.token(32)), randomness.token(32)
        oracle = X25519PrivateKey.from_private_bytes(private.value)
        assert public_key(private) == oracle.public_key().public_bytes_raw()
        shared = oracle.exchange(X25519PublicKey.from_public_bytes(public))
        assert exchange(private, public, who="x").value == shared


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_secret_of_another_length_is_refused_before_a_library_reads_it(length):
    with pytest.raises(InputError, match="not a secret"):
        Secret(bytes(length))


def test_signatures_give_the_answer_of_rfc_8032():
    known = unhex("ed25519")
    key = IdentityKey(Ed25519PrivateKey.from_private_bytes(known["private"]))
    assert key.public == known["public"]
    assert key.sign(b"") == known["signature"]
    require_signature(known["public"], known["signature"], b"", who="test", what="vector")


def test_signatures_and_public_keys_are_those_that_openssl_gives():
    for number in range(50):
        randomness = SeededRandomness(f"signer {number}")
        oracle = Ed25519PrivateKey.from_private_bytes(randomness.token(32))
        key, message = IdentityKey(oracle), randomness.token(number)
        assert key.public == oracle.public_key().public_bytes_raw()
        assert key.sign(message) == oracle.sign(message)


def test_the_library_s_hkdf_and_aead_give_the_answers_of_rfc_5869_and_rfc_8439():
    known = unhex("hkdf_sha256")
    kdf = HKDF(algorithm=SHA256(), length=42, salt=known["salt"], info=known["info"])
    assert kdf.derive(known["ikm"]) == known["okm"]
    known = unhex("chacha20_poly1305")
    cipher = ChaCha20Poly1305(known["key"])
    assert cipher.encrypt(known["nonce"], known["plaintext"], known["aad"]) == known["ciphertext"]


def test_derived_keys_are_hkdf_by_hand_with_the_label_as_info():
    secret = Secret(bytes(range(32)))
    extracted = hmac.digest(bytes(32), secret.value, hashlib.sha256)
    by_hand = hmac.digest(extracted, labelled_hash(b"label", b"x", b"y") + b"\x01", hashlib.sha256)
    assert derive_key(secret, b"label", b"x", b"y").value == by_hand
    assert derive_key(secret, b"label", b"xy") != derive_key(secret, b"label", b"x", b"y")


@pytest.mark.parametrize("point", [*LOW_ORDER, "00" * 31, "09" + "00" * 32, ""])
def test_public_keys_that_give_no_secret_are_refused_and_name_their_owner(point):
    for use in (
        lambda key: exchange(Secret(b"k" * 32), key, who="member x"),
        lambda key: require_usable_key(key, who="member x"),
    ):
        with pytest.raises(PeerViolation) as refused:
            use(bytes.fromhex(point))
        assert refused.value.where == "member x"
        assert refused.value.reason == "BAD_KEY"


def test_a_key_is_usable_if_and_only_if_an_exchange_with_it_gives_a_secret():
    low = [int.from_bytes(bytes.fromhex(point), "little") for point in LOW_ORDER]
    near = {value + step for value in low for step in (-1, 0, 1)} | {2**255 - 1, 2**255 - 2, 9, 2**200}
    drawn = [int.from_bytes(SeededRandomness(f"key {number}").token(32), "little") for number in range(50)]
    for value in (*(value % 2**255 + top for value in near for top in (0, 2**255)), *drawn):
        key = value.to_bytes(32, "little")
        refusals = []
        for use in (
            lambda key: exchange(Secret(b"k" * 32), key, who="m"),
            lambda key: require_usable_key(key, who="m"),
        ):
            try:
                use(key)
            except PeerViolation as error:
                refusals.append(error)
        assert len(refusals) == (2 if value % 2**255 in low else 0)


def test_sealed_bytes_open_only_as_sealed():
    secrets = draw_round_secrets(SeededRandomness("seal"))
    shared = exchange(secrets.encryption_private, b"\x09" + bytes(31), who="base point")
    sealed = seal(shared, SETUP, A, B, b"shares")
    assert open_sealed(shared, SETUP, A, B, sealed) == b"shares"
    other = Secret(b"o" * 32)
    for arguments in (
        (shared, SETUP, B, A, sealed),  # reflected
        (shared, b"t" * 32, A, B, sealed),  # replayed into another setup
        (shared, SETUP, A, MemberId(b"c" * 16), sealed),  # swapped
        (other, SETUP, A, B, sealed),
        (shared, SETUP, A, B, sealed[:-1] + bytes([sealed[-1] ^ 1])),
        (shared, SETUP, A, B, b""),
    ):
        with pytest.raises(PeerViolation):
            open_sealed(*arguments)


def test_round_secrets_are_fresh_and_field_elements():
    randomness = SeededRandomness("draw")
    first, second = draw_round_secrets(randomness), draw_round_secrets(randomness)
    drawn = [
        secret.value
        for round_ in (first, second)
        for secret in (round_.mask_secret, round_.encryption_private, round_.seed)
    ]
    assert len(set(drawn)) == 6
    assert all(int.from_bytes(s.value, "big") < PRIME for s in (first.mask_secret, first.seed))


def test_masking_keys_and_commitments_are_bound_to_their_setup():
    secret = Secret(b"k" * 32)
    assert derive_mask_private(secret, SETUP) != derive_mask_private(secret, b"t" * 32)
    commitments = {commit_seed(SETUP, A, secret), commit_seed(SETUP, B, secret), commit_seed(b"t" * 32, A, secret)}
    assert len(commitments) == 3


def test_secrets_do_not_show_and_cannot_be_hashed():
    secret = Secret(b"topsecret".ljust(32))
    key = IdentityKey.generate(SeededRandomness("identity"))
    assert "topsecret" not in repr(secret) + str(secret) + f"{secret}" + repr([secret])
    assert key.to_pem().decode().splitlines()[1] not in repr(key)
    with pytest.raises(TypeError):
        hash(secret)


def test_an_identity_survives_pem_and_a_wrong_pem_is_refused():
    key = IdentityKey.generate(SeededRandomness("identity"))
    again = IdentityKey.from_pem(key.to_pem())
    assert (again.member, again.public, again.sign(b"x")) == (key.member, key.public, key.sign(b"x"))
    with pytest.raises(IdentityError):
        IdentityKey.from_pem(b"-----BEGIN NOTHING-----")


def test_a_signature_over_anything_else_names_the_signer():
    key = IdentityKey.generate(SeededRandomness("identity"))
    signature = key.sign(b"message")
    require_signature(key.public, signature, b"message", who="m", what="note")
    for public, signed, message in (
        (key.public, signature, b"other"),
        (key.public, signature[:-1], b"message"),
        (key.public, bytes(64), b"message"),
        (key.public, signature + b"0", b"message"),
        (key.public, b"", b"message"),
        (bytes(31), signature, b"message"),
        (b"", signature, b"message"),
    ):
        with pytest.raises(IdentityError) as refused:
            require_signature(public, signed, message, who="member m", what="note")
        assert refused.value.where == "member m"


def test_what_openssl_signs_holds_and_what_it_refuses_does_not():
    key = IdentityKey.generate(SeededRandomness("oracle"))
    public = Ed25519PublicKey.from_public_bytes(key.public)
    for number in range(200):
        message = number.to_bytes(2, "big") * number
        signature = bytearray(key.sign(message))
        require_signature(key.public, bytes(signature), message, who="m", what="note")
        signature[number % 64] ^= 1 << number % 8
        with pytest.raises(InvalidSignature):
            public.verify(bytes(signature), message)
        with pytest.raises(IdentityError):
            require_signature(key.public, bytes(signature), message, who="m", what="note")


def test_nobody_has_two_signatures_of_one_message_or_a_key_that_signs_everything():
    key = IdentityKey.generate(SeededRandomness("identity"))
    signature = key.sign(b"message")
    order = 2**252 + 27742317777372353535851937790883648493
    twin = (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")
    neutral = b"\x01" + bytes(31)  # a key of order 1: R = sB holds for every message
    for public, signed in ((key.public, signature[:32] + twin), (neutral, neutral + bytes(32))):
        with pytest.raises(IdentityError):
            require_signature(public, signed, b"message", who="m", what="note")


def test_a_fingerprint_is_eight_groups_of_four_digits():
    key = IdentityKey.generate(SeededRandomness("identity"))
    assert fingerprint(key.public).replace(" ", "") == key.member.hex()
    assert [len(group) for group in fingerprint(key.public).split(" ")] == [4] * 8
