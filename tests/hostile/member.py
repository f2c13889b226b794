"""The real daemon without data to read or a model to train: `python -m tests.hostile.member HOME WEIGHT [liar]`.

Its update is the same value in every coordinate, of norm WEIGHT, so that a sum tells whose updates are in it.
A liar is hooked where it hears, reports, uploads and deals: in a job whose name is a lie's it lies in that way.
"""

from __future__ import annotations

import asyncio
import functools
import os
import sys
from pathlib import Path

import numpy as np

from lepton_client import daemon
from lepton_client.binding import Prepared
from lepton_client.home import Home, load_identity
from lepton_client.link import ControlSession
from lepton_client.participant import Participant
from lepton_client.transfer_link import Transfers
from lepton_core.errors import LeptonError
from lepton_core.identity import IdentityKey
from lepton_core.ids import Digest, JobId
from lepton_core.job import Job
from lepton_core.layout import Vector
from lepton_core.secagg import client as machine
from lepton_core.secagg.terms import Setup
from lepton_core.session import RoundClosed, RoundCommand, RoundInvite, RoundReport, ServerCommand
from tests.hostile.member_lies import LIES, Lie


class NoData:
    """Stands for `Binding`: the data can serve every job."""

    def __init__(self, *_where: object, **_options: object) -> None:
        pass

    async def prepare(self, job: Job, _population: object) -> Prepared:
        rows = np.zeros((1, job.task.width), dtype=np.float32)
        return Prepared(features=rows, target=np.zeros(1, dtype=np.float32), plan=Digest("1" * 64))


class NoTraining:
    """Stands for `Trainer`: the same update at once, whatever the model."""

    def __init__(self, weight: float, **_options: object) -> None:
        self._weight = weight

    async def start(self) -> None:
        """Nothing to start."""

    async def load(self, *_rows: object) -> None:
        """Nothing to load."""

    async def train(self, _job: Job, model: Vector, *_rest: object) -> Vector:
        return np.full(len(model), self._weight / np.sqrt(len(model)), dtype=np.float32)

    async def close(self) -> None:
        """Nothing to end."""


class Liar:
    """What is between a lying owner's daemon and the wire."""

    def __init__(self, identity: IdentityKey) -> None:
        self._identity = identity
        self._lies: dict[JobId, Lie] = {}

    def lie(self, job: JobId) -> Lie:
        """How the owner lies in this job."""
        if job not in self._lies:
            self._lies[job] = LIES.get(job.rpartition("-")[0], Lie)(self._identity)
        return self._lies[job]

    def install(self) -> None:
        """Hook this process's daemon."""
        handle, report, upload, deal = Participant.handle, ControlSession.report, Transfers.upload, machine.deal

        def hearing(participant: Participant, command: ServerCommand) -> object:
            match command:
                case RoundInvite(Setup(job=job)) | RoundCommand(job=job) | RoundClosed(job=job):
                    self.lie(job).told(command)
            return handle(participant, command)

        def reporting(session: ControlSession, said: object) -> None:
            told = [said]
            if isinstance(said, RoundReport):
                lie = self.lie(said.job)
                lie.say = functools.partial(report, session)
                told = list(lie.report(said))
            for one in told:
                report(session, one)

        async def uploading(
            transfers: Transfers, job: JobId, number: int, payload: bytes, *rest: object, **how: object
        ):
            await self.lie(job).upload(functools.partial(upload, transfers, job, number, **how), payload, *rest)

        def dealing(key: IdentityKey, secrets: object, *rest: object, **how: object) -> object:
            setup_id = how["setup_id"]
            dealt = next((lie.secrets(secrets) for lie in self._lies.values() if lie.knows(setup_id)), secrets)
            return deal(key, dealt, *rest, **how)

        Participant.handle = hearing
        ControlSession.report = reporting
        Transfers.upload = uploading
        machine.deal = dealing


async def main(folder: Path, weight: float, *, lies: bool) -> None:
    """Take part until told to stop, as `lepton client run` does."""
    daemon.Binding = NoData
    daemon.Trainer = functools.partial(NoTraining, weight)
    if lies:
        Liar(load_identity(Home(folder))).install()
    await daemon.run(folder)


if __name__ == "__main__":
    code = 0
    try:
        asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2]), lies=sys.argv[3:] == ["liar"]))
    except LeptonError as error:
        sys.stderr.write(f"{error.code} {error.reason}: {error}\n")
        code = 1
    sys.stderr.flush()
    os._exit(code)  # as `lepton` ends: waiting for gRPC's threads would take seconds
