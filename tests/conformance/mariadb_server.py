"""A real MariaDB for the tests that ask for one: its program from the system, its data in a folder that is taken away.

It listens on this machine alone, by TLS for who asks, and dies with the process that started it.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pymysql
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

#: Where Debian has the server; not every PATH names it.
_PATH = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
_START_S, _STOP_S = 60, 30


@dataclass(frozen=True)
class MariaDb:
    """A server that runs, empty but for the database `ward`, which its user `owner` may do everything in."""

    port: int
    #: The server's own certificate, which clients trust by `ssl_ca`.
    certificate: Path

    def url(self, user: str = "owner", options: str = "") -> str:
        """For SQLAlchemy."""
        return f"mariadb+pymysql://{user}@127.0.0.1:{self.port}/ward{options}"


@contextmanager
def mariadb_server() -> Iterator[MariaDb]:
    """The server; the test is skipped where there is none to start."""
    server, install = (shutil.which(name, path=_PATH) for name in ("mariadbd", "mariadb-install-db"))
    if server is None or install is None:
        pytest.skip("no MariaDB server on this machine (Debian's package is mariadb-server)")
    folder = Path(tempfile.mkdtemp(prefix="lepton-maria-"))
    try:
        data, own = folder / "data", ["--user=root"] if Path.home() == Path("/root") else []
        small = ["--innodb-log-file-size=4M", "--innodb-flush-log-at-trx-commit=0"]
        made = [install, "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal", *own, *small]
        subprocess.run([*made, "--skip-test-db"], check=True, capture_output=True, timeout=_START_S)
        _certificate(folder)
        port = _free_port()
        leash = shutil.which("setpriv", path=_PATH)
        process = subprocess.Popen(
            [
                *((leash, "--pdeathsig", "KILL") if leash else ()),
                *(server, "--no-defaults", f"--datadir={data}", f"--socket={folder}/s", f"--pid-file={folder}/pid"),
                *("--bind-address=127.0.0.1", f"--port={port}", "--skip-name-resolve", *own, *small),
                *(f"--ssl-cert={folder}/cert.pem", f"--ssl-key={folder}/key.pem"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            _prepare(process, folder / "s")
            yield MariaDb(port, folder / "cert.pem")
        finally:
            process.terminate()
            try:
                process.communicate(timeout=_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _prepare(process: subprocess.Popen[bytes], place: Path) -> None:
    """Wait until it says that it is ready; then the database and its owner."""
    assert process.stderr is not None
    for line in process.stderr:
        if b"ready for connections" in line:
            break
    else:
        raise AssertionError("MariaDB did not start")
    with pymysql.connect(unix_socket=str(place), user="root", connect_timeout=_START_S) as root, root.cursor() as say:
        say.execute("CREATE DATABASE ward CHARACTER SET utf8mb4")
        say.execute("CREATE USER owner@'127.0.0.1'")
        say.execute("GRANT ALL ON *.* TO owner@'127.0.0.1' WITH GRANT OPTION")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _certificate(folder: Path) -> None:
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ward")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
