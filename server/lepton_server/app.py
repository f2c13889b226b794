"""The coordinator process: the only place where its parts are put together."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from lepton_core import __version__
from lepton_core.errors import FaultError, InputError
from lepton_core.ids import JobId, MemberId
from lepton_core.ports import Clock, SystemClock, SystemRandomness
from lepton_core.session import PROTOCOL_VERSION, ServerCommand
from lepton_core.views import HealthView, JobEvent
from lepton_pool.local import LocalEngine
from lepton_pool.memory import keep_freed_memory
from lepton_protos.channel import Endpoint, load_endpoint, save_endpoint, server_credentials
from lepton_server.api.bulk_port import BulkPort
from lepton_server.api.control_servicer import ControlService
from lepton_server.api.guard import Guard, Servicer
from lepton_server.api.health_servicer import HealthService, StandardHealthService
from lepton_server.api.jobs_servicer import JobsService
from lepton_server.api.knowledge_embedded_link import EmbeddedKnowledge
from lepton_server.api.knowledge_link import KnowledgeSource
from lepton_server.api.knowledge_remote_link import RemoteKnowledge
from lepton_server.api.knowledge_servicer import KnowledgeService
from lepton_server.api.people_servicer import EnrolmentService, FederationsService, OwnersService
from lepton_server.api.sessions import Sessions
from lepton_server.api.tls import tls_context
from lepton_server.api.transfer_servicer import TransferService
from lepton_server.api.watchers import Watchers
from lepton_server.coordinator import Coordinator
from lepton_server.identity.anchors import Anchors
from lepton_server.identity.enrolment import Enrolment
from lepton_server.identity.invitations import Invitations
from lepton_server.identity.principals import Principals
from lepton_server.jobs import events as ev
from lepton_server.listening import open_server, serving, stopped_by_signals
from lepton_server.pump import Pump, Work
from lepton_server.rounds.sums import RunningSums
from lepton_server.settings import CoordinatorSettings, load_settings
from lepton_server.setup import load_authority, read_file, renew_server_certificate, require_operator
from lepton_server.store.artifacts import FolderArtifacts
from lepton_server.store.sql import SqlStore
from lepton_server.work import Workshop

#: Unfinished uploads that nobody has added to for so long are forgotten at the start, and artifacts that no job names
#: and nobody has claimed are deleted then and when a job ends.
_UNNAMED_S = 86_400.0
_log = structlog.get_logger("lepton.coordinator")


async def serve(
    home: Path,
    *,
    ready: Callable[[str], None] | None = None,
    stop: asyncio.Event | None = None,
    **overrides: str,
) -> None:
    """Run the coordinator in `home` until `stop` is set, or SIGTERM or SIGINT comes; ends within 10 s.

    `ready` is told the address once calls are answered; `<home>/address` holds it too. `overrides` are settings that
    stand above the file's, such as `listen`, `database_file` or `knowledge`.

    Raises:
        InputError: no coordinator in the folder, settings that do not hold, or a database that needs a migration.
        FaultError: the port is in use, the folder cannot be written to, or the database cannot be reached.
    """
    keep_freed_memory()
    settings = load_settings(home, **overrides)
    clock, randomness = SystemClock(), SystemRandomness()
    with contextlib.ExitStack() as closing, stopped_by_signals(stop) as stopped:
        # 1. The folder is ours alone, and the state is there.
        closing.enter_context(_sole_user(home))
        store = SqlStore(settings.database_url(home))
        closing.callback(store.close)
        artifacts = FolderArtifacts(home / settings.artifacts)
        artifacts.sweep(clock, older_than_s=_UNNAMED_S)
        require_operator(store, home)
        authority = load_authority(home, settings)
        certificate, key = renew_server_certificate(home, settings, authority), read_file(home / settings.key)
        # 2. The port is ours too, before anything is under way.
        server, port = open_server(
            settings.listen,
            server_credentials(certificate=certificate, key=key, ca_certificate=authority.certificate),
        )
        address = settings.advertised(port)
        # 3. The coordinator, and what performs its effects.
        knowledge: KnowledgeSource = (
            RemoteKnowledge(Endpoint(settings.knowledge, authority.certificate, certificate, key))
            if settings.knowledge
            else EmbeddedKnowledge(home / settings.ontologies, store, clock)
        )
        engine, sums = LocalEngine(), RunningSums(artifacts)
        workshop = Workshop(artifacts, engine, sums)
        coordinator = Coordinator(
            store, artifacts, sums, clock=clock, randomness=randomness, check_task=knowledge.check_task
        )
        watchers = Watchers()
        sessions = Sessions(lambda member: pump.put(ev.MemberLost(member)), grace_s=settings.member_grace_s)
        pump = Pump(coordinator, _Outlets(sessions, watchers, workshop, artifacts, clock), clock)
        # 4. The services, each behind the guard.
        principals = Principals(store)
        bulk = _bulk_port(home, settings, artifacts, principals)
        guard = Guard(principals, clock)
        enrolment = Enrolment(store, authority, clock)
        invitations = Invitations(store, authority, clock, randomness)
        anchors = Anchors(store, clock)
        condition = _Condition(store, coordinator, pump, sessions, started=clock.now())
        servicers: tuple[Servicer, ...] = (
            ControlService(coordinator, pump, sessions, anchors, heartbeat_s=settings.heartbeat_s),
            TransferService(coordinator, pump, artifacts, bulk),
            EnrolmentService(enrolment, principals, pump),
            OwnersService(invitations, enrolment, principals, sessions, guard, pump, anchors, address),
            FederationsService(store, clock, pump),
            JobsService(coordinator, pump, watchers, knowledge.check_task),
            KnowledgeService(knowledge),
            HealthService(condition.report),
            StandardHealthService(lambda: condition.report().ready),
        )
        handlers = [guard.handler(servicer) for servicer in servicers]
        try:
            # 5. Jobs that ran go on; then members and people may come.
            await pump.start()
            async with (
                serving(server, handlers),
                _carrying(bulk),
                _answering_queries(knowledge, home, settings, principals),
            ):
                _tell_address(home, address)
                _log.info("ready", address=address, database=store.description)
                if ready is not None:
                    ready(address)
                await stopped.wait()
                # 6. Streams end, calls finish, what has arrived is taken in.
                condition.stopping = True
                sessions.end_all()
            with contextlib.suppress(FaultError):  # members tell it again
                await pump.call(anchors.flush)
        finally:
            await pump.stop()
            await engine.close()
            workshop.close()
            await knowledge.close()
            _log.info("stopped")


@dataclass(frozen=True)
class _Outlets:
    """Where the pump's effects go."""

    sessions: Sessions
    watchers: Watchers
    workshop: Workshop
    artifacts: FolderArtifacts
    clock: Clock

    def tell(self, member: MemberId, command: ServerCommand) -> None:
        self.sessions.push(member, command)

    def announce(self, event: JobEvent) -> None:
        self.watchers.ring(JobId(event.job))

    async def work(self, effect: Work) -> ev.WorkDone:
        return await self.workshop.run(effect)

    async def add(self, effect: ev.RunAdd) -> None:
        await self.workshop.add(effect)

    async def forget(self, effect: ev.ForgetPayloads) -> None:
        await self.workshop.forget(effect)

    async def sweep(self, named: frozenset[str]) -> None:
        swept = await asyncio.to_thread(self.artifacts.sweep_unnamed, named, self.clock, older_than_s=_UNNAMED_S)
        if swept:
            _log.info("artifacts that no job names were deleted", artifacts=swept)


@dataclass
class _Condition:
    """How the coordinator is."""

    store: SqlStore
    coordinator: Coordinator
    pump: Pump
    sessions: Sessions
    started: float
    stopping: bool = False

    def report(self) -> HealthView:
        problems = [self.pump.problem] if self.pump.problem else []
        if self.stopping:
            problems.append("stopping")
        return HealthView(
            ready=not problems,
            software_version=__version__,
            protocol_version=PROTOCOL_VERSION,
            database=self.store.description,
            connected_members=self.sessions.count(),
            running_jobs=self.coordinator.running_jobs,
            started=self.started,
            problems=tuple(problems),
        )


def _bulk_port(
    home: Path, settings: CoordinatorSettings, artifacts: FolderArtifacts, principals: Principals
) -> BulkPort | None:
    """The port for bulk bytes; None if the settings have none."""
    if not settings.bulk:
        return None
    tls = tls_context(
        home / settings.certificate,
        home / settings.key,
        ca_certificate=read_file(home / settings.ca_certificate),
        least=ssl.TLSVersion.TLSv1_3,
    )
    return BulkPort(settings.bulk, tls, artifacts, principals, SystemClock())


@contextlib.asynccontextmanager
async def _carrying(bulk: BulkPort | None) -> AsyncIterator[None]:
    """Serve the port for bulk bytes, if there is one, while the block runs."""
    if bulk is None:
        yield
        return
    bulk.start()
    _log.info("bulk bytes", port=bulk.port)
    try:
        yield
    finally:
        await asyncio.to_thread(bulk.stop)


@contextlib.asynccontextmanager
async def _answering_queries(
    knowledge: KnowledgeSource, home: Path, settings: CoordinatorSettings, principals: Principals
) -> AsyncIterator[None]:
    """Serve `/sparql` over the ontologies kept here while the block runs, if the settings say so."""
    if not settings.sparql or not isinstance(knowledge, EmbeddedKnowledge):  # settings allow it nowhere else
        yield
        return
    from lepton_server.api.knowledge_http import by_certificate, serving_sparql

    ca_certificate = read_file(home / settings.ca_certificate)
    tls = tls_context(home / settings.certificate, home / settings.key, ca_certificate=ca_certificate)
    identify = by_certificate(principals, SystemClock())
    async with serving_sparql(knowledge, settings.sparql, identify=identify, tls=tls) as url:
        _log.info("SPARQL", url=url)
        yield


@contextlib.contextmanager
def _sole_user(home: Path) -> Iterator[None]:
    """Hold the folder's lock, so that no second coordinator runs on the same state."""
    path = home / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise FaultError(
            "the coordinator's folder cannot be written to",
            where=str(home),
            got=error.strerror or type(error).__name__,
            hint="correct its owner and mode",
            reason="UNWRITABLE",
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise FaultError(
                "another coordinator runs in this folder", where=str(home), hint="stop it first", reason="LOCKED"
            ) from None
        yield
    finally:
        os.close(descriptor)


def _tell_address(home: Path, address: str) -> None:
    """Write the address where programs and the operator's profile find it."""
    new = home / "address.new"
    new.write_text(f"{address}\n", encoding="utf-8")
    new.replace(home / "address")
    try:
        profile = load_endpoint(home / "operator")
    except InputError:
        return  # the operator keeps it elsewhere
    if profile.address != address:
        save_endpoint(home / "operator", Endpoint(address, profile.ca_certificate, profile.certificate, profile.key))
