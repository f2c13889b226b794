"""`Jobs`: submit, list, show, watch and abort. Researchers see their own jobs, operators and auditors all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from lepton_core.errors import NotFoundError
from lepton_core.ids import JobId, RoundNumber, require_name
from lepton_core.job import parse_job
from lepton_core.task import Task
from lepton_core.views import JobView
from lepton_protos import convert
from lepton_protos.status import printable
from lepton_protos.v1 import job_pb2 as pb
from lepton_server.api.guard import Call
from lepton_server.api.watchers import Watchers
from lepton_server.coordinator import Coordinator
from lepton_server.identity.roles import Role
from lepton_server.jobs.events import Effect
from lepton_server.pump import Pump

#: Events behind which a job has no more.
_LAST_EVENTS = frozenset({"finished", "failed", "aborted"})
_LONGEST_REASON = 300


class JobsService:
    """What researchers and operators ask of jobs, rounds and models."""

    service = pb.DESCRIPTOR.services_by_name["Jobs"]

    def __init__(
        self, coordinator: Coordinator, pump: Pump, watchers: Watchers, check_task: Callable[[Task], None]
    ) -> None:
        self._coordinator = coordinator
        self._pump = pump
        self._watchers = watchers
        #: Blocks; fetches and parses the ontology if it is not in memory.
        self._check_task = check_task

    async def submit(self, request: pb.SubmitRequest, call: Call) -> pb.SubmitReply:
        """The id of the job that was started."""
        # Checked here already, so that the coordinator's own check finds the ontology in memory and does not wait.
        await asyncio.to_thread(lambda: self._check_task(parse_job(request.canonical_job).task))
        started: list[JobId] = []

        def submit() -> tuple[Effect, ...]:
            job, effects = self._coordinator.submit(request.canonical_job, call.principal.name)
            started.append(job)
            return effects

        await self._pump.act(submit)
        return pb.SubmitReply(job=started[0])

    async def list(self, _request: pb.ListJobsRequest, call: Call) -> pb.JobList:
        """All jobs that the caller may see, oldest first, without rounds and models."""
        views = await self._pump.call(self._coordinator.list_jobs)
        return pb.JobList(jobs=[convert.to_proto(view) for view in views if _may_see(view, call)])

    async def show(self, request: pb.ShowJobRequest, call: Call) -> pb.JobView:
        """The job with its rounds and models."""
        view: pb.JobView = convert.to_proto(await self._visible(request.job, call))
        return view

    async def watch(self, request: pb.WatchRequest, call: Call) -> AsyncIterator[pb.JobEvent]:
        """Every event from `after` on, then as they happen, until the job has ended."""
        view = await self._visible(request.job, call)
        job, after = JobId(view.job), request.after
        with self._watchers.watch(job) as bell:
            while True:
                bell.clear()  # before reading: what happens meanwhile rings again
                for event in await self._pump.call(self._coordinator.events, job, after):
                    after = event.sequence
                    yield convert.to_proto(event)
                    if event.kind in _LAST_EVENTS:
                        return
                if view.state.ended:
                    return
                await bell.wait()

    async def abort(self, request: pb.AbortRequest, call: Call) -> pb.JobView:
        """The job, now ended; what it has learnt so far stays."""
        job = JobId((await self._visible(request.job, call)).job)
        reason = printable(request.reason[:_LONGEST_REASON]).replace("\n", " ") or "no reason given"
        await self._pump.act(lambda: self._coordinator.abort(job, reason, call.principal.name))
        view: pb.JobView = convert.to_proto(await self._visible(job, call))
        return view

    async def show_round(self, request: pb.ShowRoundRequest, call: Call) -> pb.RoundView:
        """One round, or the newest."""
        job = JobId((await self._visible(request.job, call)).job)
        number = RoundNumber(request.round) if request.round else None
        view: pb.RoundView = convert.to_proto(await self._pump.call(self._coordinator.show_round, job, number))
        return view

    async def models(self, request: pb.ListModelsRequest, call: Call) -> pb.ModelList:
        """The job's model versions."""
        view = await self._visible(request.job, call)
        return pb.ModelList(models=[convert.to_proto(model) for model in view.models])

    async def _visible(self, name: str, call: Call) -> JobView:
        """The job, if the caller may see it; otherwise it is as if it were not there."""
        job = JobId(require_name(name, "job id"))
        view = await self._pump.call(self._coordinator.show_job, job)
        if not _may_see(view, call):
            raise NotFoundError("no such job", where=f"job {job}", hint="`lepton job list` names them")
        return view


def _may_see(view: JobView, call: Call) -> bool:
    return call.principal.role != Role.RESEARCHER or view.researcher == call.principal.name
