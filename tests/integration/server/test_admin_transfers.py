"""What people transfer with the admin's link, through the real server: from files, to files, and going on."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from lepton_admin import artifact_link
from lepton_admin.link import CoordinatorLink
from lepton_core.errors import InputError, NotFoundError, PeerViolation
from lepton_core.ids import Digest, digest_of
from lepton_core.session import MatchAnswer, MatchRequest, RoundInvite
from lepton_protos.channel import CHUNK_BYTES
from lepton_protos.incoming import partial_of
from lepton_server.api import transfer_servicer
from lepton_server.store.artifacts import FolderArtifacts
from tests.integration.client.cable import Cable
from tests.integration.server.running import (
    IdentityKey,
    Party,
    SystemRandomness,
    enrol,
    operator,
    publish_members,
    publish_ontology,
    running,
    session_of,
    small_job,
    submit,
)

DATA = os.urandom(5 * CHUNK_BYTES + 77)


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Path]:
    """The folder of a coordinator that runs."""
    async with running(tmp_path / "home"):
        yield tmp_path / "home"


class Stalling(Cable):
    """A cable that carries nothing more on the connection over which so many bytes have gone, and tells nobody."""

    stalls = 0

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, upward: bool) -> None:
        await super()._carry(reader, writer, upward=upward)
        if self.cuts and not self.stalls:
            self.stalls += 1
            await asyncio.Event().wait()


def link_of(party: Party) -> CoordinatorLink:
    return CoordinatorLink(party.endpoint)


async def model_of(home: Path) -> tuple[Digest, Party]:
    """A job's first model, which its researcher may have."""
    owners = [await enrol(home, f"owner-{number}") for number in range(3)]
    ada = await enrol(home, "ada", "researcher")
    await publish_members(ada, owners, IdentityKey.generate(SystemRandomness()))
    job = await submit(ada, small_job(await publish_ontology(ada)))
    async with contextlib.AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(session_of(owner)) for owner in owners]
        for session in sessions:
            request = await session.receive(MatchRequest)
            await session.send(MatchAnswer(request.job, None))
        for session in sessions:
            await session.receive(RoundInvite)
        with link_of(ada) as link:
            (model,) = await asyncio.to_thread(link.models, job)
    return Digest(model.digest), ada


async def test_a_file_is_uploaded_and_told_of_as_it_goes(home: Path, tmp_path: Path) -> None:
    ada, file, told = await enrol(home, "ada", "researcher"), tmp_path / "weights", []
    file.write_bytes(DATA)
    with link_of(ada) as link:
        link.progress = lambda done, size: told.append((done, size))
        assert await asyncio.to_thread(link.upload_from, file) == digest_of(DATA)
        assert await asyncio.to_thread(link.upload, DATA) == digest_of(DATA)  # is there already
    assert FolderArtifacts(home / "artifacts").get(digest_of(DATA)) == DATA
    assert told[-1] == (len(DATA), len(DATA))
    assert len(told) > 2
    assert told == sorted(told)


async def test_a_file_that_is_not_there_is_a_typed_error(home: Path, tmp_path: Path) -> None:
    with link_of(operator(home)) as link, pytest.raises(InputError, match="cannot be uploaded"):
        await asyncio.to_thread(link.upload_from, tmp_path / "none")


async def test_an_upload_whose_cable_is_cut_goes_on_by_itself(home: Path, tmp_path: Path) -> None:
    ada = await enrol(home, "ada", "researcher")
    async with Cable(ada.endpoint.address, 2 * CHUNK_BYTES + 9, upward=True) as cable:
        cut = Party("ada", replace(ada.endpoint, address=cable.address))
        with link_of(cut) as link:
            assert await asyncio.to_thread(link.upload, DATA) == digest_of(DATA)
    assert cable.cuts == 1
    assert FolderArtifacts(home / "artifacts").get(digest_of(DATA)) == DATA


async def test_a_transfer_whose_line_falls_silent_is_tried_again(home: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(artifact_link, "_QUIET_S", 0.5)
    ada = await enrol(home, "ada", "researcher")
    async with Stalling(ada.endpoint.address, 2 * CHUNK_BYTES + 9, upward=True) as cable:
        slow = Party("ada", replace(ada.endpoint, address=cable.address))
        with link_of(slow) as link:
            assert await asyncio.to_thread(link.upload, DATA) == digest_of(DATA)
    assert cable.stalls == 1
    assert FolderArtifacts(home / "artifacts").get(digest_of(DATA)) == DATA


async def test_a_model_is_written_to_a_file_behind_what_an_earlier_command_had(home: Path, tmp_path: Path) -> None:
    digest, ada = await model_of(home)
    content, told = FolderArtifacts(home / "artifacts").get(digest), []
    file = tmp_path / "model"
    partial_of(file, digest).write_bytes(content[:10])
    with link_of(ada) as link:
        link.progress = lambda done, size: told.append(done)
        await asyncio.to_thread(link.download_to, file, digest)
        assert file.read_bytes() == content
        assert await asyncio.to_thread(link.download, digest) == content
        with pytest.raises(PeerViolation, match="larger than allowed"):
            await asyncio.to_thread(lambda: link.download(digest, largest=10))
        with pytest.raises(NotFoundError):
            await asyncio.to_thread(link.download_to, tmp_path / "other", "0" * 64)
    assert not file.with_name(f".{digest}.partial").exists()


async def test_an_artifact_larger_than_any_is_refused_before_its_bytes(home: Path, monkeypatch) -> None:
    monkeypatch.setattr(transfer_servicer, "LARGEST_ARTIFACT", len(DATA) - 1)
    ada = await enrol(home, "ada", "researcher")
    with link_of(ada) as link, pytest.raises(InputError) as refused:
        await asyncio.to_thread(link.upload, DATA)
    assert refused.value.reason == "TOO_LARGE"
