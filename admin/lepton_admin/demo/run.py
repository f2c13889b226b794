"""The demo, from an empty folder to the table: its main flow on one page."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from lepton_admin.cli.options import OutputFormat
from lepton_admin.demo import stage
from lepton_admin.demo.baselines import load_baselines
from lepton_admin.demo.folder import DemoFolder, example_folder
from lepton_admin.demo.power_loss import PowerLoss
from lepton_admin.demo.processes import Processes
from lepton_admin.demo.report import Findings
from lepton_admin.link import CoordinatorLink
from lepton_admin.models import export_model, remember_job, sidecar_of
from lepton_admin.submission import ReadyJob, load_job_file, resolve_job, submit_job, warm_up
from lepton_admin.watching import Watcher, follow
from lepton_core.errors import AbortedError, FaultError, InputError
from lepton_core.ids import JobId
from lepton_core.job import JobFile
from lepton_core.settings import parse_settings
from lepton_core.views import JobEvent

#: The member that loses power, and after which share of the rounds.
LOST_OWNER, LOST_AFTER = "changhe", 0.1
#: How long one look at the stream of events lasts, before the processes are looked at.
LOOK_S = 5.0


@dataclass(frozen=True)
class DemoOptions:
    """What the command line asked for."""

    folder: Path
    output: OutputFormat
    #: None leaves the job file's number.
    rounds: int | None = None
    reuse: bool = False
    seed: int = 0


@dataclass(frozen=True)
class _Scene:
    """What the steps of the demo work on."""

    folder: DemoFolder
    processes: Processes
    watcher: Watcher
    options: DemoOptions
    #: Monotonic time at which the command began.
    started: float


@contextlib.contextmanager
def demo(options: DemoOptions, started: float) -> Iterator[Findings]:
    """Run the demo and give its findings; inside the `with`, the federation still runs.

    `started` is the monotonic time at which the command began. Leaving the `with`, by whatever way, ends every process.

    Raises:
        LeptonError: what went wrong, with the log to read.
    """
    folder = DemoFolder(options.folder.resolve())
    reuse = options.reuse and folder.is_demo() and folder.is_set_up()
    # 1. One folder for all state; an earlier demo's is replaced, anybody else's never.
    if not reuse:
        folder.replace()
    silent = options.output is OutputFormat.JSON
    with (
        _ends_cleanly(),
        Processes(folder.logs) as processes,
        Watcher("demo", options.output, silent=silent) as watcher,
    ):
        scene = _Scene(folder, processes, watcher, options, started)
        # 2. The coordinator starts, and the hospitals' data are written meanwhile.
        watcher.say("starting a coordinator with a CA of its own, and writing the hospitals' data")
        _start(scene, reuse=reuse)
        # 3. Everybody is enrolled with a one-time token; the federation key signs who may be a peer.
        if not reuse:
            watcher.say("enrolling six hospitals and a researcher, each with keys of its own; signing the member list")
            with CoordinatorLink.of_profile(folder.operator) as operator:
                stage.enrol_everybody(folder, operator)
        with CoordinatorLink.of_profile(folder.researcher) as researcher:
            if not reuse:
                stage.found_federation(folder, researcher)
            # 4. The daemons start; the ontology is published; the job is resolved and handed in.
            watcher.say("starting six daemons, each a process of its own beside its data")
            stage.start_owners(folder, processes)
            if not reuse:
                processes.finish("data", 60.0)
                watcher.say("each hospital's steward approves and signs its mapping")
                mapped = {owner: (folder.mapping(owner), folder.home(owner)) for owner in stage.OWNERS}
                stage.sign_mappings(processes, folder.ontology, mapped)
            ready, job_id = _submit(scene, researcher)
            # 5. The rounds, watched like any researcher would; one member loses power in a middle round and comes back.
            seconds_first_round = _watch(scene, researcher, ready, job_id)
            # 6. The model, what the owners' own ledgers say, and the comparison that only a demo can make.
            yield _conclude(scene, researcher, ready, job_id, seconds_first_round)


def _start(scene: _Scene, *, reuse: bool) -> None:
    folder, processes = scene.folder, scene.processes
    address = folder.coordinator / "address"
    address.unlink(missing_ok=True)
    if reuse:
        processes.lepton("coordinator", "coordinator", "serve", str(folder.coordinator))
    else:
        stage.start_coordinator(folder, processes)
        stage.write_data(folder, processes, scene.options.seed)
    # Not a daemon thread: the interpreter must not end while one is inside a library.
    threading.Thread(target=warm_up, args=(example_folder() / "job.toml",)).start()
    processes.wait_until(address.is_file, "the coordinator's start", "coordinator")


def _submit(scene: _Scene, researcher: CoordinatorLink) -> tuple[ReadyJob, JobId]:
    folder = scene.folder
    researcher.publish_ontology(folder.ontology.read_bytes(), "turtle", "hospitals")
    ready = resolve_job(_job_file(scene.options, folder, researcher), folder.data, researcher)
    job_id = submit_job(ready, researcher)
    remember_job(folder.researcher, job_id, ready.job)
    job = ready.job
    scene.watcher.board.job = job_id
    scene.watcher.say(f"submitted {job_id}: {len(job.task.features)} concepts, {job.training.rounds} rounds")
    return ready, job_id


def _watch(scene: _Scene, researcher: CoordinatorLink, ready: ReadyJob, job_id: JobId) -> float:
    """Follow the job to its end; gives the seconds until its first round was done."""
    processes, watcher = scene.processes, scene.watcher
    power = PowerLoss(
        owner=LOST_OWNER,
        from_round=1 + int(LOST_AFTER * ready.job.training.rounds),
        cohort=len(stage.HOSPITALS),
        stop=lambda: processes.stop_children(LOST_OWNER),
        kill=lambda: processes.kill(LOST_OWNER),
        restart=lambda: stage.start_owner(scene.folder, processes, LOST_OWNER),
        say=watcher.say,
    )
    first_round = 0.0
    baselines_run = False

    def take(event: JobEvent) -> None:
        nonlocal first_round, baselines_run
        power.take(event)
        watcher.take(event)
        if event.kind == "round" and first_round == 0.0:
            first_round = time.monotonic() - scene.started
        # Not before the loss: whatever is done here between two events makes its kill later, and in the end too late.
        if power.rounds and not power.is_down and not baselines_run:
            baselines_run = True
            _start_baselines(scene, ready, researcher)

    def between() -> None:
        processes.check()
        power.look()

    follow(lambda after: researcher.watch(job_id, after, timeout_s=LOOK_S), take, watcher.board, between=between)
    watcher.close()
    if watcher.board.state != "finished":
        raise AbortedError(
            f"the demo's job ended as {watcher.board.state}",
            where=job_id,
            got=watcher.board.reason,
            hint="every owner's budget is spent, as it has to be: start anew in another --folder, or without --reuse"
            if "BUDGET_EXCEEDED" in watcher.board.reason
            else f"read the logs in {scene.folder.logs}",
        )
    if not baselines_run:
        _start_baselines(scene, ready, researcher)
    return first_round


def _conclude(
    scene: _Scene, researcher: CoordinatorLink, ready: ReadyJob, job_id: JobId, seconds_first_round: float
) -> Findings:
    folder = scene.folder
    stage.write_quality(folder, scene.processes)
    view = researcher.job(job_id)
    for path in (folder.model, sidecar_of(folder.model)):
        path.unlink(missing_ok=True)
    export_model(researcher, ready.job, view, None, folder.model)
    owners = [match.owner for match in view.owners if match.state == "can"]
    charged = {owner: _charged(folder, owner, ready.job.population) for owner in owners}
    scene.processes.finish("baselines", 120.0)
    scene.processes.finish("quality", 60.0)
    return Findings(
        job=view,
        asked=ready.job,
        baselines=load_baselines(_baseline_file(folder)),
        charged=charged,
        lost_owner=LOST_OWNER,
        model=folder.model,
        quality=folder.quality(LOST_OWNER),
        folder=folder.root,
        seconds_total=time.monotonic() - scene.started,
        seconds_first_round=seconds_first_round,
    )


def _job_file(options: DemoOptions, folder: DemoFolder, researcher: CoordinatorLink) -> JobFile:
    file = load_job_file(folder.data / "job.toml", researcher)
    if options.rounds is None:
        return file
    document = file.model_dump(mode="json")
    document["training"]["rounds"] = options.rounds
    return parse_settings(JobFile, document, source="--rounds")


def _start_baselines(scene: _Scene, ready: ReadyJob, researcher: CoordinatorLink) -> None:
    folder = scene.folder
    if ready.evaluation is None:
        raise InputError("the demo's job has no evaluation set", where=str(folder.data / "job.toml"))
    folder.baselines.mkdir(exist_ok=True)
    evaluation, ontology = (folder.baselines / name for name in ("holdout.safetensors", "ontology.nq"))
    evaluation.write_bytes(ready.evaluation)
    ontology.write_bytes(researcher.ontology(ready.job.task.ontology))
    _baseline_file(folder).unlink(missing_ok=True)
    owners = [
        f"{owner}={stage.DECLARED_ROWS[owner]}={folder.data / owner / 'mapping.yaml'}" for owner in stage.HOSPITALS
    ]
    recipe = example_folder() / "job-local.toml"
    files = [str(path) for path in (recipe, evaluation, ontology, _baseline_file(folder))]
    scene.processes.lepton("baselines", "--module", "lepton_admin.demo.baselines", *files, *owners)


def _baseline_file(folder: DemoFolder) -> Path:
    return folder.baselines / "baselines.json"


def _charged(folder: DemoFolder, owner: str, population: str) -> tuple[int, float]:
    from lepton_client.status import status

    told = status(folder.home(owner))
    for entry in told["populations"]:
        if entry["population"] == population:
            return int(entry["rounds_charged"]), float(entry["epsilon_spent"])
    raise FaultError("the owner's ledger does not know the population", where=owner, got=population)


@contextlib.contextmanager
def _ends_cleanly() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind like Ctrl-C, so that every process is ended on the way out."""

    def unwind(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, unwind) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
