"""Bring a database's tables to this version, or back to an earlier one."""

from __future__ import annotations

from pathlib import Path

from lepton_core.errors import InputError
from lepton_server.store.database import become_writer, describe, open_engine, typed_errors
from lepton_server.store.tables import REVISION

MIGRATIONS = Path(__file__).with_name("migrations")


def migrate(url: str, revision: str = REVISION) -> None:
    """Run the migrations that lead up to `revision`, in one transaction; none if the database is there already.

    Raises:
        InputError: not a database URL, or the database is newer than this software.
        FaultError: the database cannot be reached or written to.
    """
    _run(url, revision, up=True)


def downgrade(url: str, revision: str) -> None:
    """Take back every migration behind `revision`; "base" takes back all, and every row with them.

    Raises:
        InputError: not a database URL, or no such revision.
        FaultError: the database cannot be reached or written to.
    """
    _run(url, revision, up=False)


def _run(url: str, revision: str, *, up: bool) -> None:
    # Here, as a coordinator that serves has been migrated already, and alembic takes a quarter of a second to import.
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    engine = open_engine(url)
    place = describe(engine.url)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    try:
        with typed_errors(place), engine.begin() as connection:
            become_writer(connection)
            config.attributes["connection"] = connection
            (command.upgrade if up else command.downgrade)(config, revision)
    except CommandError as error:
        raise InputError(
            "the database cannot be migrated",
            where=place,
            expected=f"a database of version {REVISION} or earlier",
            got=str(error)[:200],
            hint="install the version of Lepton that wrote it, or restore a backup",
        ) from None
    finally:
        engine.dispose()
