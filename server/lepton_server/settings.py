"""`coordinator.toml`: where the coordinator listens, and where its state and keys lie."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from lepton_core.errors import InputError
from lepton_core.settings import Settings, parse_settings

FILE_NAME = "coordinator.toml"


class CoordinatorSettings(Settings):
    """The coordinator's settings. Paths are taken from the coordinator's folder."""

    #: host:port to listen on; port 0 takes a free one.
    listen: str = "127.0.0.1:8443"
    #: host:port that invitations name; port 0 stands for the port listened on. Empty: the same as `listen`.
    advertise: str = ""
    #: host:port for bulk bytes over TLS connections of their own, reached by the host that clients know; port 0 takes a
    #: free one. Empty, or where it cannot be reached: they go through `listen`, at about half the speed.
    bulk: str = ""
    #: SQLAlchemy URL; empty keeps an SQLite file in the folder.
    database: str = ""
    #: File that holds the database URL, for URLs with a password; takes the place of `database`.
    database_file: str = ""
    #: Folder of models, evaluation sets and uploads.
    artifacts: str = "artifacts"
    #: Folder of the published ontology versions, where `knowledge` is empty.
    ontologies: str = "ontologies"
    #: host:port of a knowledge service of its own; empty keeps ontologies here.
    knowledge: str = ""
    #: host:port where `/sparql` answers queries over the ontologies kept here, by mutual TLS; empty: it is not served.
    sparql: str = ""
    #: The certificate authority; its key signs enrolments.
    ca_certificate: str = "ca/cert.pem"
    ca_key: str = "ca/key.pem"
    #: The coordinator's own certificate and key.
    certificate: str = "tls/cert.pem"
    key: str = "tls/key.pem"
    #: How often a daemon says that it is alive, in seconds.
    heartbeat_s: float = Field(default=10.0, ge=0.1, le=300.0)
    #: How long a daemon whose stream broke may take to come back before its round goes on without it, in seconds.
    member_grace_s: float = Field(default=2.0, ge=0.0, le=300.0)

    @field_validator("listen", "advertise", "bulk", "knowledge", "sparql")
    @classmethod
    def _check_address(cls, value: str) -> str:
        if value:
            split_address(value)
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.listen:
            raise ValueError("listen: required, such as 127.0.0.1:8443")
        if self.knowledge and split_address(self.knowledge)[1] == 0:
            raise ValueError("knowledge: needs a port")
        if self.knowledge and self.sparql:
            raise ValueError("sparql: the knowledge service keeps the ontologies, ask it: `lepton kg serve --sparql`")
        if self.database and self.database_file:
            raise ValueError("database and database_file: give one of them")
        return self

    def database_url(self, home: Path) -> str:
        """The database's URL.

        Raises:
            InputError: `database_file` cannot be read.
        """
        if not self.database_file:
            return self.database or f"sqlite:///{(home / 'lepton.db').resolve()}"
        path = home / self.database_file
        try:
            return path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                "the file with the database URL cannot be read",
                where=str(path),
                expected="one line, such as postgresql+psycopg://user:password@host/name",
                got=type(error).__name__,
            ) from None

    def advertised(self, port: int) -> str:
        """host:port for invitations, when the coordinator listens on `port`."""
        host, advertised_port = split_address(self.advertise or self.listen)
        return join_address(host, port if advertised_port == 0 or not self.advertise else advertised_port)


def load_settings(home: Path, **overrides: str) -> CoordinatorSettings:
    """The settings in the coordinator's folder; `overrides` that are not empty stand above the file.

    Raises:
        InputError: there is no coordinator in this folder.
        SettingsError: the file is not TOML, or a key of it is wrong.
    """
    path = home / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            "no coordinator in this folder",
            where=str(home),
            expected=f"a file {FILE_NAME}",
            hint="make one with `lepton coordinator init`",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("the settings cannot be read", where=str(path), got=type(error).__name__) from None
    try:
        document: dict[str, Any] = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError("the settings are not TOML", where=str(path), got=str(error)) from None
    given = {key: value for key, value in overrides.items() if value}
    if "database_file" in given:
        document.pop("database", None)
    if "database" in given:
        document.pop("database_file", None)
    return parse_settings(CoordinatorSettings, {**document, **given}, source=str(path))


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port`; an IPv6 host stands in brackets.

    Raises:
        ValueError: not of that form.
    """
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65_535 or (":" in host and not bracketed):
        raise ValueError(f"not an address of the form host:port: {address[:80]!r}")
    return host.strip("[]"), int(port)


def join_address(host: str, port: int) -> str:
    """`host:port`, with an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
