"""The name of a round without secure aggregation, which both sides derive."""

from __future__ import annotations

from lepton_core.secagg.terms import labelled_hash


def derive_plain_sid(setup_id: bytes, model_digest: bytes) -> bytes:
    """Names a plain round on a model; no secure round has this name. 32 bytes."""
    return labelled_hash(b"lepton/plain/v1/round", setup_id, model_digest)
