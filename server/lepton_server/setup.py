"""Make a coordinator's folder: authority, certificates, settings, the operator's profile, and an empty store."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509

from lepton_core.errors import ConflictError, FaultError, InputError
from lepton_core.ids import OwnerName
from lepton_core.ports import SystemClock
from lepton_core.settings import parse_settings
from lepton_protos.channel import Endpoint, save_endpoint
from lepton_server.identity.ca import (
    DAY_S,
    PARTY_DAYS,
    SERVICE_DAYS,
    CertificateAuthority,
    KeyPair,
    Subject,
    fingerprint_of,
    make_ca,
)
from lepton_server.identity.roles import Role
from lepton_server.settings import FILE_NAME, CoordinatorSettings, join_address, load_settings, split_address
from lepton_server.store.database import parse_url
from lepton_server.store.migrate import migrate
from lepton_server.store.port import EnrolledParty, Store

OPERATOR = OwnerName("operator")
#: Name in the coordinator's own certificate.
COORDINATOR = "coordinator"


def init_home(
    home: Path,
    *,
    listen: str,
    hosts: Sequence[str],
    bulk: str = "",
    database: str | None = None,
    database_file: Path | None = None,
    knowledge: str = "",
) -> CoordinatorSettings:
    """A coordinator's folder. `hosts` are the names and addresses that clients reach it by; the first is advertised.

    `bulk` is the address for large transfers over connections of their own; empty takes the port before `listen`'s,
    `off` has none. `database` is a URL, `database_file` a file that holds one; `knowledge` is the address of a
    knowledge service of its own. Private keys are readable by their owner only. An SQLite database is made at once; a
    PostgreSQL one by `migrate_home`. Settings are written last: a folder with settings is a whole one.

    Raises:
        ConflictError: there is a coordinator, or a part of one, in the folder already.
        InputError, SettingsError: an address, host or database URL that cannot be used.
        FaultError: the folder cannot be written to.
    """
    if not hosts:
        raise InputError("a coordinator needs a name or address that clients reach it by", where="hosts")
    document = {
        "listen": listen,
        "advertise": _advertise(listen, hosts[0]),
        "bulk": "" if bulk == "off" else bulk or _port_before(listen),
        "database": database or "",
        "database_file": str(database_file.resolve()) if database_file else "",
        "knowledge": knowledge,
    }
    settings = parse_settings(CoordinatorSettings, document, source="command line")
    url = settings.database_url(home)
    is_sqlite = parse_url(url).drivername == "sqlite"
    now = SystemClock().now()
    try:
        _require_free(home, settings)
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        authority = make_ca(now=now)
        keys, operator_keys = KeyPair.generate(), KeyPair.generate()
        server = authority.issue(
            keys.public, Subject(Role.SERVICE, COORDINATOR), now=now, valid_s=SERVICE_DAYS * DAY_S, hosts=hosts
        )
        operator = authority.issue(
            operator_keys.public, Subject(Role.OPERATOR, OPERATOR), now=now, valid_s=PARTY_DAYS * DAY_S
        )
        if is_sqlite:
            migrate(url)
        _write_new(home / settings.ca_key, authority.keys.to_pem())
        _write_new(home / settings.ca_certificate, authority.certificate)
        _write_new(home / settings.key, keys.to_pem())
        _write_new(home / settings.certificate, server.certificate)
        address = settings.advertised(split_address(listen)[1])
        save_endpoint(
            home / "operator",
            Endpoint(address, authority.certificate, operator.certificate, operator_keys.to_pem()),
        )
        _write_new(home / FILE_NAME, _toml(document).encode())
    except OSError as error:
        raise FaultError(
            "the coordinator's folder cannot be written",
            where=str(error.filename or home),
            got=error.strerror or type(error).__name__,
        ) from None
    return settings


def migrate_home(home: Path, **overrides: str) -> None:
    """Bring the coordinator's database to this version's tables; `overrides` as in `load_settings`.

    Raises:
        InputError: no coordinator there, or a database of a newer version.
        FaultError: the database cannot be reached or written to.
    """
    migrate(load_settings(home, **overrides).database_url(home))


def issue_service(home: Path, name: str, hosts: Sequence[str], folder: Path) -> None:
    """A folder with the credentials of a service beside the coordinator, such as a knowledge service.

    Raises:
        ConflictError: the folder holds credentials already.
        InputError: no coordinator in `home`, or a name or host that cannot be used.
        FaultError: the folder cannot be written.
    """
    if name == COORDINATOR or not hosts:
        raise InputError("a service needs a name of its own and a host", where="service", got=name[:80])
    authority = load_authority(home, load_settings(home))
    keys = KeyPair.generate()
    issued = authority.issue(
        keys.public,
        Subject(Role.SERVICE, name),
        now=SystemClock().now(),
        valid_s=SERVICE_DAYS * DAY_S,
        hosts=hosts,
    )
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write_new(folder / "key.pem", keys.to_pem())
        _write_new(folder / "cert.pem", issued.certificate)
        _write_new(folder / "ca.pem", authority.certificate)
    except FileExistsError:
        raise ConflictError(
            "the folder holds credentials already",
            where=str(folder),
            hint="choose another folder",
            reason="HOME_EXISTS",
        ) from None
    except OSError as error:
        raise FaultError(
            "the service's folder cannot be written", where=str(folder), got=error.strerror or type(error).__name__
        ) from None


def load_authority(home: Path, settings: CoordinatorSettings) -> CertificateAuthority:
    """The coordinator's certificate authority.

    Raises:
        InputError: its files are missing or unreadable.
    """
    key_path = home / settings.ca_key
    keys = KeyPair.from_pem(read_file(key_path), source=str(key_path))
    return CertificateAuthority(read_file(home / settings.ca_certificate), keys)


def require_operator(store: Store, home: Path) -> None:
    """See to it that the folder's operator is enrolled in the database, which may be younger than the folder.

    Raises:
        ConflictError: the database belongs to another coordinator.
    """
    with store.transaction() as transaction:
        if transaction.party(OPERATOR) is not None:
            return
        pem = read_file(home / "operator" / "cert.pem")
        certificate = x509.load_pem_x509_certificate(pem)
        if transaction.parties():
            raise ConflictError(
                "the database belongs to another coordinator", where=store.description, hint="use an empty database"
            )
        transaction.put_party(
            EnrolledParty(
                name=OPERATOR,
                role=Role.OPERATOR,
                member=None,
                identity=b"",
                enrolled=certificate.not_valid_before_utc.timestamp(),
                certificate=fingerprint_of(pem),
                certificate_expires=certificate.not_valid_after_utc.timestamp(),
            )
        )
        transaction.append_audit(SystemClock().now(), OPERATOR, "enrol", OPERATOR, "by `lepton coordinator init`")


def renew_server_certificate(home: Path, settings: CoordinatorSettings, authority: CertificateAuthority) -> bytes:
    """The coordinator's certificate, issued anew for the same hosts if it is in its last third.

    Raises:
        InputError: certificate or key cannot be read.
    """
    path = home / settings.certificate
    try:
        current = x509.load_pem_x509_certificate(read_file(path))
    except ValueError:
        raise InputError("the coordinator's certificate cannot be read", where=str(path), expected="PEM") from None
    now = SystemClock().now()
    if now < current.not_valid_after_utc.timestamp() - SERVICE_DAYS * DAY_S / 3:
        return path.read_bytes()
    names = current.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    hosts = [
        *names.get_values_for_type(x509.DNSName),
        *map(str, names.get_values_for_type(x509.IPAddress)),
    ]
    keys = KeyPair.from_pem(read_file(home / settings.key), source=str(home / settings.key))
    issued = authority.issue(
        keys.public, Subject(Role.SERVICE, COORDINATOR), now=now, valid_s=SERVICE_DAYS * DAY_S, hosts=hosts
    )
    renewed = path.with_suffix(".new")
    renewed.write_bytes(issued.certificate)
    renewed.replace(path)
    return issued.certificate


def read_file(path: Path) -> bytes:
    """The file's bytes.

    Raises:
        InputError: it is missing or unreadable.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            "a file of the coordinator is missing", where=str(path), got=error.strerror or type(error).__name__
        ) from None


def _advertise(listen: str, host: str) -> str:
    try:
        return join_address(host, split_address(listen)[1])
    except ValueError:
        return ""  # `listen` is refused by the settings, which name it


def _port_before(listen: str) -> str:
    try:
        host, port = split_address(listen)
    except ValueError:
        return ""
    return join_address(host, max(0, port - 1))


def _require_free(home: Path, settings: CoordinatorSettings) -> None:
    parts = (FILE_NAME, settings.ca_key, settings.ca_certificate, settings.key, settings.certificate, "operator")
    found = [name for name in parts if (home / name).exists()]
    if found:
        raise ConflictError(
            "there is a coordinator in this folder already",
            where=str(home),
            got=", ".join(found),
            hint="start it with `lepton coordinator serve`, or choose another folder",
            reason="HOME_EXISTS",
        )


def _write_new(path: Path, data: bytes) -> None:
    """A new file, readable by its owner only; never over an old one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _toml(document: dict[str, str]) -> str:
    lines = ["# Settings of a Lepton coordinator.", ""]
    for key, value in document.items():
        if value:
            escaped = value.replace("\\", "\\\\").replace('"', '\\"')
            lines.append(f'{key} = "{escaped}"')
    return "\n".join(lines) + "\n"
