"""What a job takes into memory is no larger than the job needs, whatever was uploaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from lepton_core.errors import InputError
from lepton_server.jobs.events import InitialModelFailed
from lepton_server.store.artifacts import FolderArtifacts
from lepton_server.store.port import get_bounded
from tests.unit.server.test_first_weights import run


def test_an_artifact_is_read_only_if_it_is_small_enough(tmp_path: Path) -> None:
    artifacts = FolderArtifacts(tmp_path)
    digest = artifacts.put(b"x" * 100)
    assert get_bounded(artifacts, digest, 100) == b"x" * 100
    with pytest.raises(InputError) as refused:
        get_bounded(artifacts, digest, 99)
    assert (refused.value.reason, refused.value.got) == ("TOO_LARGE", "100 bytes")


def test_first_weights_far_larger_than_the_model_are_not_read(tmp_path: Path) -> None:
    done = run(tmp_path, bytes(2**20 + 1_000))
    assert isinstance(done, InitialModelFailed)
    assert done.error.reason == "TOO_LARGE"
