"""An update in the plain is looked at before it counts, and only a round that waits for it takes it in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lepton_core.errors import InputError, LeptonError, PeerViolation
from lepton_core.ids import Digest, JobId, OwnerName, RoundNumber, digest_of
from lepton_core.plain import server as plain
from lepton_core.ports import SystemRandomness
from lepton_core.secagg.messages import InputTrailer
from lepton_core.secagg.payload import encode_payload
from lepton_pool.plain import encode_fed_back, encode_plain
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


def take(
    folder: Path, payload: bytes, *, inline: bool, phase: Rounding | None = None, number: int = 1, facts: Facts = FACTS
) -> bool:
    """True if the update lies in the store afterwards."""
    artifacts = FolderArtifacts(folder)
    if not inline:
        artifacts.put(payload)
    came = Input(RoundNumber(number), trailer(payload), payload if inline else b"")
    waits = took_payload(
        facts, phase or running(), came, sums=RunningSums(artifacts), artifacts=artifacts, kept=lambda _: False
    )
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
        took_payload(FACTS, running(), came, sums=RunningSums(artifacts), artifacts=artifacts, kept=lambda _: False)
    with pytest.raises(LeptonError):
        took_payload(
            FACTS,
            running(),
            came,
            sums=RunningSums(artifacts),
            artifacts=artifacts,
            kept=lambda digest: digest == digest_of(UPDATE),
        )


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize("codec", ["topk", "sign"])
def test_an_update_that_was_fed_back_is_decoded_before_it_counts(tmp_path: Path, codec: str, inline: bool) -> None:
    job = make_job(
        privacy={"mode": "none", "noise_multiplier": None},
        aggregation={"secure": False, "codec": codec, "min_cohort": 3, "max_cohort": 3},
    )
    facts = replace(FACTS, job=job, terms=derive_terms(job, bytes(32)))
    update = np.array([0.5, 0.0, 0.25, 0.125], np.float32)
    good = encode_payload(encode_fed_back(job, update, 65535, SystemRandomness(), residual=None).words)
    assert take(tmp_path, good, inline=inline, facts=facts)
    scale = good.index(np.float32(0.5 if codec == "topk" else 0.21875).tobytes())
    for value in (np.nan, np.inf, 3.0):
        forged = good[:scale] + np.float32(value).tobytes() + good[scale + 4 :]
        with pytest.raises(PeerViolation) as refused:
            take(tmp_path, forged, inline=inline, facts=facts)
        assert (refused.value.reason, refused.value.where) == ("BAD_UPDATE", f"member {KEYS[0].member.hex()}")
    for forged in (good[:-8], good + bytes(8)):
        with pytest.raises(PeerViolation) as refused:
            take(tmp_path, forged, inline=inline, facts=facts)
        assert refused.value.reason == "WRONG_LENGTH"
