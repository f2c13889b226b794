"""The coordinator as a process: how it starts, refuses to start, is found, and ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import sys
import tomllib
from pathlib import Path

import pytest
from cryptography import x509

from lepton_core.errors import (
    ConflictError,
    FaultError,
    IdentityError,
    InputError,
    JobError,
    LeptonError,
    MappingError,
    NotFoundError,
    SettingsError,
)
from lepton_core.ids import digest_of
from lepton_protos.channel import Endpoint, load_endpoint
from lepton_protos.v1 import identity_pb2 as idpb
from lepton_protos.v1 import identity_pb2_grpc, kg_pb2, kg_pb2_grpc
from lepton_server.api.knowledge_app import KnowledgeAddresses, serve_knowledge
from lepton_server.app import serve
from lepton_server.setup import init_home, issue_service, migrate_home
from lepton_server.store.migrate import downgrade, migrate
from tests.integration.server.running import (
    DEADLINE_S,
    calling,
    enrol,
    operator,
    publish_ontology,
    refused,
    running,
    small_job,
    submit,
)

HOSTS = ["localhost", "127.0.0.1"]


async def start(home: Path, **overrides: str) -> None:
    """Start, and stop as soon as it is ready."""
    stop = asyncio.Event()
    async with asyncio.timeout(DEADLINE_S):
        await serve(home, ready=lambda _: stop.set(), stop=stop, **overrides)


async def test_a_ready_coordinator_says_where_it_is(tmp_path: Path) -> None:
    async with running(tmp_path) as address:
        assert (tmp_path / "address").read_text(encoding="utf-8") == f"{address}\n"
        assert load_endpoint(tmp_path / "operator").address == address
        async with calling(operator(tmp_path)) as channel:
            health = await identity_pb2_grpc.HealthStub(channel).Report(idpb.HealthRequest(), timeout=DEADLINE_S)
        assert health.ready
        assert health.database.startswith("sqlite")
        assert not health.problems


def test_private_keys_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    init_home(tmp_path / "home", listen="127.0.0.1:0", hosts=HOSTS)
    keys = list((tmp_path / "home").rglob("*key.pem"))
    assert len(keys) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700


def test_init_writes_settings_and_certificates_that_fit_them(tmp_path: Path) -> None:
    init_home(tmp_path, listen="0.0.0.0:7443", hosts=["lepton.example.org", "10.0.0.7"])
    document = tomllib.loads((tmp_path / "coordinator.toml").read_text(encoding="utf-8"))
    assert document == {"listen": "0.0.0.0:7443", "advertise": "lepton.example.org:7443", "bulk": "0.0.0.0:7442"}
    assert load_endpoint(tmp_path / "operator").address == "lepton.example.org:7443"
    certificate = x509.load_pem_x509_certificate((tmp_path / "tls" / "cert.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["lepton.example.org"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.7"]


def test_init_never_overwrites_a_coordinator(tmp_path: Path) -> None:
    init_home(tmp_path, listen="127.0.0.1:0", hosts=HOSTS)
    before = (tmp_path / "ca" / "key.pem").read_bytes()
    with pytest.raises(ConflictError, match="already"):
        init_home(tmp_path, listen="127.0.0.1:0", hosts=HOSTS)
    (tmp_path / "coordinator.toml").unlink()
    with pytest.raises(ConflictError, match="already"):
        init_home(tmp_path, listen="127.0.0.1:0", hosts=HOSTS)
    assert (tmp_path / "ca" / "key.pem").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"listen": "nowhere"}, SettingsError),
        ({"listen": "127.0.0.1:99999"}, SettingsError),
        ({"hosts": ["not a host ü"]}, InputError),
        ({"hosts": []}, InputError),
        ({"database": "mysql://host/db"}, InputError),
    ],
)
def test_init_refuses_what_cannot_be_and_writes_no_settings(tmp_path: Path, changes, kind) -> None:
    with pytest.raises(kind):
        init_home(tmp_path, **{"listen": "127.0.0.1:0", "hosts": HOSTS, **changes})
    assert not (tmp_path / "coordinator.toml").exists()


def test_init_in_a_place_that_is_no_folder_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LeptonError) as refusal:
        init_home(tmp_path / "file" / "home", listen="127.0.0.1:0", hosts=HOSTS)
    assert isinstance(refusal.value, FaultError)


async def test_a_port_in_use_is_a_fault_that_names_it(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        init_home(tmp_path, listen=address, hosts=HOSTS)
        with pytest.raises(FaultError) as refusal:
            await start(tmp_path)
    assert refusal.value.where == address
    assert refusal.value.reason == "PORT_IN_USE"
    await start(tmp_path)  # free again, and nothing was left behind


async def test_a_second_coordinator_in_one_folder_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path):
        with pytest.raises(FaultError, match="another coordinator"):
            await start(tmp_path)


async def test_a_second_coordinator_on_one_port_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path / "one") as address:
        init_home(tmp_path / "two", listen=f"127.0.0.1:{address.rpartition(':')[2]}", hosts=HOSTS)
        with pytest.raises(FaultError) as refusal:
            await start(tmp_path / "two")
        assert refusal.value.reason == "PORT_IN_USE"


async def test_a_folder_without_a_coordinator_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lepton coordinator init"):
        await start(tmp_path)


async def test_a_database_without_its_tables_asks_for_the_migration(tmp_path: Path) -> None:
    init_home(tmp_path, listen="127.0.0.1:0", hosts=HOSTS)
    downgrade(f"sqlite:///{tmp_path}/lepton.db", "base")
    with pytest.raises(InputError, match="lepton coordinator migrate"):
        await start(tmp_path)
    migrate_home(tmp_path)
    await start(tmp_path)


async def test_a_database_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    secret = tmp_path / "database_url"
    secret.write_text("postgresql://lepton:hunter2@127.0.0.1:1/lepton\n", encoding="utf-8")
    init_home(tmp_path / "home", listen="127.0.0.1:0", hosts=HOSTS)
    with pytest.raises(FaultError) as refusal:
        await start(tmp_path / "home", database_file=str(secret))
    assert "hunter2" not in str(refusal.value)
    with pytest.raises(InputError, match="database URL"):
        await start(tmp_path / "home", database_file=str(tmp_path / "none"))


async def test_the_database_of_another_coordinator_is_refused(tmp_path: Path) -> None:
    init_home(tmp_path / "one", listen="127.0.0.1:0", hosts=HOSTS)
    async with running(tmp_path / "one"):
        await enrol(tmp_path / "one", "aurora")
    import sqlite3

    with sqlite3.connect(tmp_path / "one" / "lepton.db") as database:
        database.execute("DELETE FROM party WHERE name = 'operator'")
    database.close()
    with pytest.raises(ConflictError, match="another coordinator"):
        await start(tmp_path / "one")


@pytest.mark.parametrize(
    "line",
    [
        'lisen = "127.0.0.1:0"',
        "heartbeat_s = -1",
        'listen = "x"',
        "nonsense",
        'knowledge = "host:0"',
        "heartbeat_s = nan",
    ],
)
async def test_settings_that_do_not_hold_stop_the_start(tmp_path: Path, line: str) -> None:
    init_home(tmp_path, listen="127.0.0.1:0", hosts=HOSTS)
    with (tmp_path / "coordinator.toml").open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    with pytest.raises(InputError) as refusal:
        await start(tmp_path)
    assert "coordinator.toml" in str(refusal.value)


async def test_a_process_ends_within_ten_seconds_of_sigterm_and_leaves_its_folder_usable(tmp_path: Path) -> None:
    init_home(tmp_path, listen="127.0.0.1:0", hosts=HOSTS)
    code = "import asyncio, pathlib, sys; from lepton_server.app import serve\n"
    code += "asyncio.run(serve(pathlib.Path(sys.argv[1]), ready=lambda a: print('ready', flush=True)))"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(tmp_path), stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    async with asyncio.timeout(DEADLINE_S):
        while b"ready\n" not in (line := await process.stdout.readline()):
            assert line, "the coordinator ended before it was ready"
    async with calling(operator(tmp_path)) as channel:
        await identity_pb2_grpc.HealthStub(channel).Report(idpb.HealthRequest(), timeout=DEADLINE_S)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10.0):
            assert await process.wait() == 0
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    await start(tmp_path)


async def test_a_knowledge_service_of_its_own_answers_through_the_coordinator_only(tmp_path: Path) -> None:
    home, folder = tmp_path / "home", tmp_path / "knowledge"
    init_home(home, listen="127.0.0.1:0", hosts=HOSTS)
    issue_service(home, "knowledge", HOSTS, folder)
    with pytest.raises(ConflictError):
        issue_service(home, "knowledge", HOSTS, folder)
    served: asyncio.Future[KnowledgeAddresses] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    service = asyncio.create_task(serve_knowledge(folder, listen="127.0.0.1:0", ready=served.set_result, stop=stop))
    address = (await served).address
    async with running(home, knowledge=address):
        ada, aurora = await enrol(home, "ada", "researcher"), await enrol(home, "aurora")
        digest = await publish_ontology(ada)
        async with calling(aurora) as channel:
            stub = kg_pb2_grpc.KnowledgeServiceStub(channel)
            replies = stub.Get(kg_pb2.GetOntologyRequest(digest=digest), timeout=DEADLINE_S)
            assert digest_of(b"".join([reply.canonical async for reply in replies])) == digest
            (version,) = (await stub.List(kg_pb2.ListOntologiesRequest(), timeout=DEADLINE_S)).versions
            assert (version.digest, version.label, version.publisher) == (digest, "test", "ada")
            outcome = kg_pb2.ValueSetRequest(digest=digest, iri="https://example.org/t#outcome")
            values = (await stub.ValueSet(outcome, timeout=DEADLINE_S)).values
            assert [(value.notation, value.labels["en"]) for value in values] == [("bad", "bad"), ("good", "good")]
            mapping = f"ontology: {digest}\nvocabulary: https://example.org/t#\nsource: {{kind: csv, path: x.csv}}\n"
            mapping += "columns: [{column: width, concept: size, unit: kg}, {column: age, concept: age, unit: mo}]"
            request = kg_pb2.ValidateMappingRequest(digest=digest, mapping=mapping)
            (problem,) = (await stub.ValidateMapping(request, timeout=DEADLINE_S)).problems
            assert (problem.column, problem.reason, problem.got) == ("width", "UNIT_MISMATCH", "a unit of mass")
            request = kg_pb2.ValidateMappingRequest(digest=digest, mapping="a: [")
            with refused(MappingError, match="strict YAML"):
                await stub.ValidateMapping(request, timeout=DEADLINE_S)
            with refused(IdentityError, reason="ROLE"):
                await stub.Approve(kg_pb2.ApproveOntologyRequest(digest=digest), timeout=DEADLINE_S)
        async with calling(ada) as channel:
            stub = kg_pb2_grpc.KnowledgeServiceStub(channel)
            request = kg_pb2.ApproveOntologyRequest(digest=digest, note="read", actor="otto")
            version = await stub.Approve(request, timeout=DEADLINE_S)
            assert [(one.approver, one.note) for one in version.approvals] == [("ada", "read")]
            request = kg_pb2.DiffOntologiesRequest(old_digest=digest, new_digest="0" * 64)
            with refused(NotFoundError, match="ontology version"):
                await stub.Diff(request, timeout=DEADLINE_S)
        direct = Endpoint(address, *_credentials(ada.endpoint))
        async with calling(direct) as channel:
            with refused(IdentityError, reason="UNKNOWN"):
                await kg_pb2_grpc.KnowledgeServiceStub(channel).List(kg_pb2.ListOntologiesRequest(), timeout=DEADLINE_S)
        with refused(JobError, match="membership list"):  # the concepts were found in the service
            await submit(ada, small_job(digest))
        with refused(NotFoundError, match="ontology"):
            await submit(ada, small_job("0" * 64))
    assert not (home / "ontologies").exists()
    stop.set()
    await service


def _credentials(endpoint: Endpoint) -> tuple[bytes, bytes, bytes]:
    return endpoint.ca_certificate, endpoint.certificate, endpoint.key


@pytest.mark.xdist_group("postgres")
async def test_a_coordinator_runs_on_postgresql_and_finds_its_state_again(tmp_path: Path, postgres_url: str) -> None:
    migrate(postgres_url)
    downgrade(postgres_url, "base")
    secret = tmp_path / "database_url"
    secret.write_text(f"{postgres_url}\n", encoding="utf-8")
    home, database = tmp_path / "home", {"database_file": str(secret)}
    init_home(home, listen="127.0.0.1:0", hosts=HOSTS)
    with pytest.raises(InputError, match="migration"):
        await start(home, **database)
    migrate_home(home, **database)
    async with running(home, **database) as address:
        aurora = await enrol(home, "aurora")
    async with running(home, listen=f"127.0.0.1:{address.rpartition(':')[2]}", **database):
        async with calling(aurora) as channel:
            health = await identity_pb2_grpc.HealthStub(channel).Report(idpb.HealthRequest(), timeout=DEADLINE_S)
        assert health.ready
        assert health.database.startswith("postgresql")
