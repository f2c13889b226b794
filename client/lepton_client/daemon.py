"""The owner's daemon: the only place of the client that wires objects together, and its main flow on one page."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from lepton_client.anchoring import Anchoring
from lepton_client.binding import Binding, derive_content_key
from lepton_client.home import Home, load_identity, load_settings, watch_home_policy
from lepton_client.ledger import FileLedger
from lepton_client.link import ControlSession
from lepton_client.logs import Log, open_log
from lepton_client.membership import watch_accepted
from lepton_client.participant import Participant
from lepton_client.pausing import paused, require_running
from lepton_client.policy import Policy
from lepton_client.progress_log import progress_log
from lepton_client.pump import Pump
from lepton_client.records import FileRecords
from lepton_client.residuals import FileResiduals
from lepton_client.train.trainer import Trainer
from lepton_client.transfer_link import Transfers
from lepton_client.watched import Watched
from lepton_core.errors import LeptonError, PolicyRefusal
from lepton_core.ports import SystemClock, SystemRandomness
from lepton_pool.memory import keep_freed_memory
from lepton_protos.channel import load_endpoint, open_aio_channel

#: An ontology is fetched within this time.
_ONTOLOGY_DEADLINE_S = 60.0


async def run(
    folder: Path,
    *,
    stop: asyncio.Event | None = None,
    ready: Callable[[], None] | None = None,
    log: Log | None = None,
) -> None:
    """Take part in jobs until SIGTERM, SIGINT or `stop`; nothing is left running afterwards.

    Raises:
        InputError: the folder is not a client's, or a file in it is wrong.
        ConflictError: another daemon uses the folder, or the coordinator speaks another protocol version.
        IdentityError: the coordinator does not accept this owner (any more).
        FaultError: the disk, or the training worker cannot be started.
    """
    home, stop, log = Home(folder), stop or asyncio.Event(), log or open_log()
    _leave_no_core_dump()
    keep_freed_memory()
    async with contextlib.AsyncExitStack() as stack:
        # 1. Who this owner is, and what it allows.
        settings = load_settings(home)
        identity, policy = load_identity(home), watch_home_policy(home, settings)
        endpoint, accepted_list = load_endpoint(home.tls), watch_accepted(home)
        accepted_list.current()
        if policy.current().jobs.allow_unprotected:
            log.warning("the policy allows jobs without privacy", key="policy.jobs.allow_unprotected")
        if policy.current().jobs.allow_plain_updates:
            log.warning("the policy allows updates without masks", key="policy.jobs.allow_plain_updates")
        if paused(home) is not None:
            log.warning("the client is paused, everything is refused", until="lepton client resume")

        # 2. What it must never forget: charges, accepted jobs, answers. A second daemon is refused here.
        ledger = stack.enter_context(contextlib.closing(FileLedger(home.ledger, identity, SystemClock())))
        stack.callback(_settle, ledger, log)
        records = stack.enter_context(contextlib.closing(FileRecords(home.jobs, home.answers)))
        open_jobs = [job_id for job_id, accepted in records.jobs().items() if not accepted.closed]
        residuals = FileResiduals(home.residuals, open_jobs)

        # 3. The training worker loads its libraries while the daemon connects and matches.
        trainer = Trainer(
            threads=settings.training_threads,
            memory_mib=settings.training_memory_mib,
            deadline_s=settings.training_deadline_s,
        )
        stack.push_async_callback(trainer.close)
        await trainer.start()

        # 4. Dial out.
        channel = await stack.enter_async_context(open_aio_channel(endpoint))
        session = ControlSession(channel, identity.member, log, Anchoring(ledger, home.anchor, log))
        transfers = Transfers(channel, progress_log(log), bulk=endpoint)

        # 5. The owner's part in every job, and the pump that runs it.
        participant = Participant(
            identity=identity,
            policy=lambda: _policy_in_force(home, policy, log),
            accepted_list=accepted_list.current,
            ledger=ledger,
            records=records,
            residuals=residuals,
            randomness=SystemRandomness(),
            clock=SystemClock(),
        )
        binding = Binding(
            home.policy(settings).parent,
            home.ontologies,
            lambda digest: transfers.ontology(digest, deadline_s=_ONTOLOGY_DEADLINE_S),
            log,
            content_key=derive_content_key(identity),
            identity=identity.public,
        )
        pump = Pump(
            participant=participant,
            session=session,
            transfers=transfers,
            binding=binding,
            trainer=trainer,
            training_deadline_s=settings.training_deadline_s,
            log=log,
        )
        stack.push_async_callback(pump.close)

        # 6. Until told to stop; leaving the stack undoes 5 to 2, so no process and no lock is left.
        stack.enter_context(_stopping_on_signals(stop))
        log.info("daemon up", owner=settings.owner, member=identity.member.hex(), coordinator=endpoint.address)
        if ready is not None:
            ready()
        await pump.run_until(stop)
        log.info("daemon down", owner=settings.owner)


def _policy_in_force(home: Home, policy: Watched[Policy], log: Log) -> Policy:
    """The policy as its file says now.

    Raises:
        PolicyRefusal: the client is paused, or the file cannot be read; the owner's log tells why, and nothing of it
            leaves.
    """
    require_running(home)
    try:
        return policy.current()
    except LeptonError as error:
        log.warning("policy unreadable, everything is refused", code=error.code, reason=error.message)
        raise PolicyRefusal(
            "the owner's policy cannot be read",
            where="policy.toml",
            hint="`lepton client policy` tells why",
            reason="UNREADABLE",
        ) from None


def _settle(ledger: FileLedger, log: Log) -> None:
    """Nothing is under way any more: what never began is given back, or else at the end of its job."""
    try:
        ledger.settle()
    except LeptonError as error:
        log.warning("rounds that never began stay charged", code=error.code, told=str(error))


def _leave_no_core_dump() -> None:
    """A crash must not write records and a round's secrets to a file; the training process inherits this."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


@contextlib.contextmanager
def _stopping_on_signals(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
