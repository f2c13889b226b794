"""An update in the plain is looked at before it counts, and only a round that waits for it takes it in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lepton_core.errors import InputError, LeptonError, PeerViolation
from lepton_core.ids import Digest, JobId, OwnerName, RoundNumber, digest_of
from lepton_core.plain import server as plain
from lepton_core.ports import SystemRandomness
from lepton_core.secagg.messages import InputTrailer
from lepton_core.secagg.payload import encode_payload
from lepton_pool.plain import encode_plain
from lepton_pool.terms import derive_terms
from lepton_server.jobs.phases import Facts, Peer, Roll, Rounding, RoundRecord
from lepton_server.rounds.sums import RunningSums
from lepton_server.rounds.uploads import Input, took_payload
from lepton_server.store.artifacts import FolderArtifacts
from tests.protocol.seeded import make_identities
from tests.unit.client.owners import make_job

KEYS = make_identities(3)
JOB = make_job(aggregation={"secure": False})
FACTS = Facts(
    job_id=JobId("job-1"),
    job=JOB,
    terms=derive_terms(JOB, bytes(32)),
    membership=b"",
    peers={key.member: Peer(OwnerName("owner"), key.public) for key in KEYS},
    secret=bytes(32),
    researcher=OwnerName("rosa"),
    submitted=0.0,
    bytes_per_parameter=4.0,
)
ROUND = RoundNumber(1)
UPDATE = encode_payload(encode_plain(JOB, np.full(4, 0.25, np.float32), 65535, SystemRandomness()))
NOT_FINITE = np.full(4, np.nan, "<f4").tobytes() + (1).to_bytes(8, "little")
TOO_LONG = np.full(4, 9.0, "<f4").tobytes() + (1).to_bytes(8, "little")


def running(**record) -> Rounding:
    phase, _ = plain.start(FACTS.setup(ROUND), {key.member: key.public for key in KEYS})
    made = RoundRecord(ROUND, tuple(key.member for key in KEYS), 0.0, 0.0, **record)
    return Rounding(Roll(), made, phase)


def trailer(payload: bytes) -> InputTrailer:
    digest = bytes.fromhex(digest_of(payload))
    return InputTrailer(KEYS[0].member, digest, len(payload), (), bytes(64))


def take(folder: Path, payload: bytes, *, inline: bool, phase: Rounding | None = None, number: int = 1) -> bool:
    """True if the update lies in the store afterwards."""
    artifacts = FolderArtifacts(folder)
    if not inline:
        artifacts.put(payload)
    came = Input(RoundNumber(number), trailer(payload), payload if inline else b"")
    kept = frozenset
    waits = took_payload(FACTS, phase or running(), came, sums=RunningSums(artifacts), artifacts=artifacts, kept=kept)
    assert not waits
    return artifacts.has(Digest(digest_of(payload)))


@pytest.mark.parametrize("inline", [True, False])
def test_an_update_is_durable_before_its_message_counts(tmp_path: Path, inline: bool) -> None:
    assert take(tmp_path, UPDATE, inline=inline)


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize("payload", [NOT_FINITE, TOO_LONG, UPDATE[:-8]])
def test_what_no_honest_member_sends_is_refused_and_names_the_member(
    tmp_path: Path, payload: bytes, inline: bool
) -> None:
    with pytest.raises(PeerViolation) as refused:
        take(tmp_path, payload, inline=inline)
    assert refused.value.where == f"member {KEYS[0].member.hex()}"
    assert not inline or not FolderArtifacts(tmp_path).has(Digest(digest_of(payload)))


def test_a_round_that_does_not_wait_for_an_update_stores_none(tmp_path: Path) -> None:
    answered = running(payloads={KEYS[0].member: Digest("1" * 64)})
    assert not take(tmp_path, UPDATE, inline=True, phase=answered)
    assert not take(tmp_path, UPDATE, inline=True, number=2)


def test_a_trailer_without_an_upload_is_refused(tmp_path: Path) -> None:
    artifacts = FolderArtifacts(tmp_path)
    came = Input(ROUND, trailer(UPDATE), b"")
    with pytest.raises(InputError):
        took_payload(FACTS, running(), came, sums=RunningSums(artifacts), artifacts=artifacts, kept=frozenset)
    with pytest.raises(LeptonError):
        took_payload(
            FACTS,
            running(),
            came,
            sums=RunningSums(artifacts),
            artifacts=artifacts,
            kept=lambda: frozenset({digest_of(UPDATE)}),
        )
