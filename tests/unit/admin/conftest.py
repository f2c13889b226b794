from __future__ import annotations

import shutil

import pytest

from lepton_admin.demo.folder import load_example


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """The hospitals example as its script writes it; not to be changed."""
    folder = tmp_path_factory.mktemp("hospitals")
    load_example().write_hospitals(folder)
    return folder


@pytest.fixture
def data(written, tmp_path):
    """A copy of the hospitals example that a test may change."""
    return shutil.copytree(written, tmp_path / "data")


@pytest.fixture
def model_file(data, tmp_path):
    """A model with the job's first weights, as `lepton model export` would write it."""
    from tests.unit.admin.made_models import write_model  # loads torch, which most tests here do without

    return write_model(data, tmp_path)
