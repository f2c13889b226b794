"""A member process of the rounds benchmark: the daemon's own parts, but for data and training, which cost nothing here.

`python -m benchmarks.rounds_member HOME COUNTS`; a line `time syncs 1` is written for every file synced. Everything
else is production: links, participant, ledger, records, pump.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, cast

import numpy as np

from lepton_client.binding import Binding, Prepared
from lepton_client.home import Home, load_identity, load_settings, watch_home_policy
from lepton_client.ledger import FileLedger
from lepton_client.link import ControlSession
from lepton_client.logs import open_log
from lepton_client.membership import watch_accepted
from lepton_client.participant import Participant
from lepton_client.policy import Population
from lepton_client.pump import Pump
from lepton_client.records import FileRecords
from lepton_client.residuals import FileResiduals
from lepton_client.train.trainer import Trainer
from lepton_client.transfer_link import Transfers
from lepton_core.ids import Digest
from lepton_core.job import Job
from lepton_core.layout import Vector
from lepton_core.ports import SystemClock, SystemRandomness
from lepton_pool.memory import keep_freed_memory
from lepton_protos.channel import load_endpoint, open_aio_channel


class _NoData:
    """Answers that the data can serve every job."""

    async def prepare(self, job: Job, _population: Population) -> Prepared:
        rows = np.zeros((1, job.task.width), dtype=np.float32)
        return Prepared(features=rows, target=np.zeros(1, dtype=np.float32), plan=Digest("1" * 64))


class _NoTraining:
    """Gives the same small update at once."""

    async def load(self, *_rows: object) -> None:
        """Nothing to load."""

    async def train(self, _job: Job, model: Vector, *_rest: object) -> Vector:
        return np.full(len(model), 1e-4, dtype=np.float32)


async def run(folder: Path) -> None:
    """Take part until SIGTERM."""
    keep_freed_memory()
    home, stop, log = Home(folder), asyncio.Event(), open_log()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings, identity = load_settings(home), load_identity(home)
    async with contextlib.AsyncExitStack() as stack:
        channel = await stack.enter_async_context(open_aio_channel(load_endpoint(home.tls)))
        session = ControlSession(channel, identity.member, log)
        participant = Participant(
            identity=identity,
            policy=watch_home_policy(home, settings).current,
            accepted_list=watch_accepted(home).current,
            ledger=stack.enter_context(contextlib.closing(FileLedger(home.ledger, identity, SystemClock()))),
            records=stack.enter_context(contextlib.closing(FileRecords(home.jobs, home.answers))),
            residuals=FileResiduals(home.residuals, ()),
            randomness=SystemRandomness(),
            clock=SystemClock(),
        )
        pump = Pump(
            participant=participant,
            session=session,
            transfers=Transfers(channel),
            binding=cast("Binding", cast("Any", _NoData())),
            trainer=cast("Trainer", cast("Any", _NoTraining())),
            training_deadline_s=60.0,
            log=log,
        )
        stack.push_async_callback(pump.close)
        await pump.run_until(stop)


def count_syncs(place: Path) -> None:
    """Count what is made durable."""
    file, fsync = place.open("a", buffering=1), os.fsync

    def counted(descriptor: int) -> None:
        fsync(descriptor)
        file.write(f"{time.time()} syncs 1\n")

    os.fsync = counted  # type: ignore[assignment]  # the same for every file that this process has


if __name__ == "__main__":
    count_syncs(Path(sys.argv[2]))
    asyncio.run(run(Path(sys.argv[1])))
