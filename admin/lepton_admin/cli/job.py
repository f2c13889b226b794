"""`lepton job`: plan, submit, watch and abort jobs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lepton_admin.cli.answer import answer_record, answer_rows, moment, score, write_line
from lepton_admin.cli.bar import transfer_bar
from lepton_admin.cli.options import CanonicalJob, Output, OutputFormat, Profile, noun_app, verb

if TYPE_CHECKING:
    from lepton_core.views import JobView, RoundView
    from lepton_pool.promise import PrivacyPlan

app = noun_app("Plan, submit, watch and abort jobs.")

JobFileArgument = Annotated[Path, typer.Argument(metavar="JOB.TOML", help="The job file.")]
JobName = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, as `lepton job list` shows it.")]


@verb(app, "plan", example="lepton job plan job.toml --profile researcher --mbit-s 20")
def plan(
    file: JobFileArgument,
    *,
    mbit_s: Annotated[float, typer.Option("--mbit-s", help="A member's line, in megabits a second.", min=0.01)] = 10.0,
    round_trip_ms: Annotated[float, typer.Option("--round-trip-ms", help="To the coordinator and back.", min=0)] = 50.0,
    rows: Annotated[
        int, typer.Option("--rows", help="Rows of a large member, for the time of training.", min=1)
    ] = 1000,
    profile: Profile,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Resolve a job file and show what it promises and would cost, without handing it in."""
    from lepton_admin.estimate import Line, expected_duration, in_words
    from lepton_admin.link import CoordinatorLink
    from lepton_admin.submission import load_job_file, resolve_job
    from lepton_client.train.trainer import ask_methods
    from lepton_core.privacy.rules import RECORD_MODES
    from lepton_pool.models import architecture_of, model_layout
    from lepton_pool.promise import plan_privacy
    from lepton_pool.terms import expected_encoding

    with CoordinatorLink.of_profile(profile) as link:
        job = resolve_job(load_job_file(file, link), file.resolve().parent, link).job
    encoding, promise = expected_encoding(job), plan_privacy(job)
    duration = expected_duration(job, Line(mbit_s, round_trip_ms), rows)
    methods = ask_methods(job) if job.privacy.mode in RECORD_MODES else {}
    bytes_per_parameter = encoding.bits_per_parameter / 8
    parameters = model_layout(architecture_of(job)).length
    answer_record(
        output,
        {
            "job": job.model_dump(mode="json"),
            "model_parameters": parameters,
            "payload_bytes": round(bytes_per_parameter * parameters),
            "bytes_per_parameter": bytes_per_parameter,
            "codec": encoding.codec,
            "expected_error": encoding.expected_error,
            "expected_saturation": encoding.expected_saturation,
            "privacy": asdict(promise) if promise is not None else None,
            "clipping": methods,
            "expected_duration": asdict(duration),
        },
        title=f"plan of {job.name}",
        fields={
            "features": len(job.task.features),
            "model": f"{job.model.kind}, {parameters} parameters",
            "rounds": job.training.rounds,
            **promise_fields(promise),
            **({"clipping": [f"layer {name}: {method}" for name, method in methods.items()]} if methods else {}),
            "cohort": f"{job.aggregation.min_cohort} to {job.aggregation.max_cohort} owners",
            "upload of a member and round": (
                f"{bytes_per_parameter * parameters:.0f} bytes, {bytes_per_parameter:.3g} a parameter"
            ),
            "encoding": encoding.codec,
            **(
                {}
                if job.privacy.distributed
                else {
                    "expected error": f"{encoding.expected_error:.2g} of the squared norm bound, in a round's mean",
                    "expected saturation": f"{encoding.expected_saturation:.2g} of the values",
                }
            ),
            "expected duration": (
                f"{in_words(duration.job_s)}, {in_words(duration.round_s)} a round, if every member has a line of "
                f"{mbit_s:g} Mbit/s, {round_trip_ms:g} ms to the coordinator and back, and at most {rows} rows"
            ),
            "evaluation rows": job.evaluation.rows if job.evaluation else "none",
        },
    )
    if output is OutputFormat.JSON or promise is None:
        return
    answer_rows(
        output,
        None,
        title=f"epsilon of one {promise.unit} by round, {promise.mode}, delta {promise.delta:g}",
        columns=("after round", "epsilon"),
        rows=[(number, f"{spent:.3f}") for number, spent in promise.by_round],
        right=("after round", "epsilon"),
    )


def promise_fields(promise: PrivacyPlan | None) -> dict[str, object]:
    """A plan's promise, in words."""
    from lepton_core.privacy.units import NEIGHBOURS

    if promise is None:
        return {"privacy": "none: the models may hold anything about anybody in the data"}
    fields: dict[str, object] = {
        "privacy": (
            f"{promise.mode}: epsilon {promise.epsilon:.3f} at delta {promise.delta:g} for {NEIGHBOURS[promise.unit]}; "
            f"after {promise.rounds} rounds"
        ),
    }
    if not promise.contributors:
        return fields | {"noise multiplier": f"{promise.noise_multiplier:g}, at each site and step"}
    honest = promise.contributors - promise.colluders
    return fields | {
        "noise multiplier": f"{promise.noise_multiplier:g}, in a sum of the shares of {honest} honest members",
        "a member's share": (
            f"discrete Gaussian integers of variance {promise.share_variance}; rounding costs "
            f"{promise.inflation - 1:.1%} of the sensitivity"
        ),
        "colluders tolerated": f"{promise.colluders} of at least {promise.contributors} members",
        "epsilon against who sees sums": f"{promise.epsilon_against_sums:.3f}",
        "epsilon if all others collude": f"{promise.epsilon_if_all_collude:.3f}",
    }


@verb(app, "try", example="lepton job try job.toml --ontology ontology.ttl")
def try_it(
    file: JobFileArgument,
    *,
    ontology: Annotated[Path, typer.Option("--ontology", help="The ontology document that the job names.")],
    sites: Annotated[int | None, typer.Option("--sites", min=3, help="Made-up sites; the smallest cohort.")] = None,
    rows: Annotated[int, typer.Option("--rows", min=20, help="Made-up records of a site.")] = 200,
    rounds: Annotated[int | None, typer.Option("--rounds", min=1, help="Fewer rounds than the job has.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Which records are made up.")] = 0,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Train on records made up from the ontology. No site is asked, nothing is spent, no coordinator is needed."""
    from lepton_admin.cli.ontology import RdfFormat, format_of
    from lepton_admin.trying import try_job

    made = try_job(
        file, ontology, format_of(ontology, RdfFormat.AUTO), sites=sites, rows=rows, rounds=rounds, seed=seed
    )
    answer_record(
        output,
        made,
        title=f"{made.job} on made-up records",
        fields={
            "sites": f"{made.sites}, {made.rows_a_site} rows each",
            "rounds": made.rounds,
            "accuracy": f"{made.accuracy:.3f} on made-up records; guessing gives {made.accuracy_of_guessing:.3f}",
            "AUC": score(made.auc),
            "features of a site": f"{made.features[0]} x {made.features[1]}",
            "model": f"{made.model_parameters} parameters: {', '.join(made.tensors)}",
            "upload of a member and round": f"{made.upload_bytes_a_round} bytes",
            "time": f"{made.seconds:.1f} s, {1e3 * made.seconds_a_round:.0f} ms a round for all sites in one process",
            "memory": f"{made.memory_mib} MiB",
            "privacy": f"epsilon at most {made.epsilon:g} at delta {made.delta:g}" if made.epsilon else "none",
        },
    )
    if output is OutputFormat.TABLE:
        answer_rows(
            output,
            None,
            title="a site refuses, or is left out, where",
            columns=("reason", "about", "where"),
            rows=[(reason.code, reason.subject or "-", reason.when) for reason in made.reasons],
        )


@verb(app, "submit", example="lepton job submit job.toml --profile researcher")
def submit(file: JobFileArgument, *, profile: Profile, output: Output = OutputFormat.TABLE) -> None:
    """Hand a job in and print its id. The ontology is resolved and the noise derived here."""
    from lepton_admin.link import CoordinatorLink
    from lepton_admin.models import remember_job
    from lepton_admin.submission import load_job_file, resolve_job, submit_job

    with CoordinatorLink.of_profile(profile) as link:
        ready = resolve_job(load_job_file(file, link), file.resolve().parent, link)
        with transfer_bar(link, output, "job's data"):
            job = submit_job(ready, link)
    remember_job(profile, job, ready.job)
    answer_record(
        output,
        {"job": job, "digest": ready.job.digest().hex()},
        title="submitted",
        fields={"job": job, "next": f"lepton job watch {job} --profile {profile}"},
    )


@verb(app, "list", example="lepton job list --profile researcher")
def list_jobs(*, profile: Profile, output: Output = OutputFormat.TABLE) -> None:
    """List all jobs."""
    from lepton_admin.link import CoordinatorLink

    with CoordinatorLink.of_profile(profile) as link:
        jobs = link.jobs()
    answer_rows(
        output,
        jobs,
        title="jobs",
        columns=("job", "state", "model version", "rounds planned", "researcher", "submitted", "reason"),
        rows=[
            (
                j.job,
                j.state.value,
                j.model_version,
                j.rounds_planned,
                j.researcher,
                moment(j.submitted),
                j.reason or "-",
            )
            for j in jobs
        ],
        right=("model version", "rounds planned"),
    )


@verb(app, "show", example="lepton job show hospitals-3f9a --profile researcher")
def show(job: JobName, *, profile: Profile, output: Output = OutputFormat.TABLE) -> None:
    """Show a job: who takes part and who does not and why, its rounds, its models, its privacy."""
    from lepton_admin.link import CoordinatorLink

    with CoordinatorLink.of_profile(profile) as link:
        view = link.job(job)
    answer_job(view, output)


@verb(app, "watch", example="lepton job watch hospitals-3f9a --profile researcher")
def watch(job: JobName, *, profile: Profile, output: Output = OutputFormat.TABLE) -> None:
    """Follow a job to its end: a live table on a terminal, one line an event when piped, or JSON lines."""
    from lepton_admin.link import CoordinatorLink
    from lepton_admin.watching import Watcher, follow
    from lepton_core.errors import AbortedError

    with CoordinatorLink.of_profile(profile) as link, Watcher(job, output) as watcher:
        follow(lambda after: link.watch(job, after), watcher.take, watcher.board, say=watcher.say)
    if watcher.board.state != "finished":
        raise AbortedError(
            f"the job ended as {watcher.board.state}",
            where=job,
            got=watcher.board.reason,
            hint=f"lepton job show {job}",
        )


@verb(app, "card", example="lepton job card hospitals-3f9a --file privacy.md --profile researcher")
def card(
    job: JobName,
    *,
    file: Annotated[
        Path | None, typer.Option("--file", help="A new file for the card: Markdown, or JSON if it ends in .json.")
    ] = None,
    job_file: CanonicalJob = None,
    profile: Profile,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Show the privacy card: what the models may have learnt, against whom that holds, and what it leaves open."""
    import json

    from lepton_admin.card import card_markdown, privacy_card
    from lepton_admin.files import write_public
    from lepton_admin.link import CoordinatorLink
    from lepton_admin.models import recall_job

    with CoordinatorLink.of_profile(profile) as link:
        view = link.job(job)
    told = privacy_card(recall_job(profile, view, job_file), view)
    if file is not None:
        as_json = json.dumps(told.document(), indent=2) + "\n"
        write_public(file, (as_json if file.suffix == ".json" else card_markdown(told)).encode())
    private = told.mode != "none"
    answer_record(
        output,
        told.document(),
        title=f"privacy card of {job}",
        fields={
            "mode": told.mode,
            "protects": f"{told.unit}: {told.neighbours}" if private else "nobody",
            "against": told.protects_against,
            "epsilon of what is released": f"{told.epsilon_released:.3f} at delta {told.delta:g}"
            if private
            else "none",
            "epsilon promised": f"{told.epsilon_promised:g}" if private else "none",
            "epsilon at most, aborted rounds included": f"{told.epsilon_at_most:.3f}" if private else "none",
            "epsilon if all others collude": f"{told.epsilon_under_collusion:.3f}" if private else "none",
            "mechanism": told.mechanism,
            "steps": told.steps,
            "accounting": told.accountant,
            "secrecy of single updates": f"sums of at least {told.least_cohort} owners" if told.masked else "none",
            "not covered": list(told.beyond),
            **({"written to": str(file)} if file is not None else {}),
        },
    )


@verb(app, "abort", example="lepton job abort hospitals-3f9a --reason 'wrong concepts' --profile researcher")
def abort(
    job: JobName,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why; owners and watchers are told.")],
    profile: Profile,
    output: Output = OutputFormat.TABLE,
) -> None:
    """End a job without a result."""
    from lepton_admin.link import CoordinatorLink

    with CoordinatorLink.of_profile(profile) as link:
        view = link.abort(job, reason)
    answer_job(view, output)


def answer_job(view: JobView, output: OutputFormat) -> None:
    """A job's view, with its owners and rounds."""
    answer_record(
        output,
        view,
        title=f"job {view.job}",
        fields={
            "state": f"{view.state.value}{': ' + view.reason if view.reason else ''}",
            "researcher": view.researcher,
            "submitted": moment(view.submitted),
            "ended": moment(view.ended),
            "model": f"version {view.model_version}, {view.model_parameters} parameters",
            "upload": f"{view.bytes_per_parameter:.2f} bytes a parameter",
            "privacy": view.privacy,
            "epsilon": f"at most {view.epsilon:.3f} at delta {view.delta:g}",
        },
    )
    if output is OutputFormat.JSON:
        return
    answer_rows(
        output,
        None,
        title="owners",
        columns=("owner", "state", "reason", "about", "records"),
        rows=[
            (o.owner, o.state, o.reason or o.code or "-", o.subject or "-", o.coverage or "not told")
            for o in view.owners
        ],
    )
    models = {model.round: model for model in view.models}
    rows: list[tuple[object, ...]] = []
    for entry in view.rounds:
        model = models.get(entry.round)
        rows.append(
            (
                entry.round,
                entry.state,
                len(entry.cohort),
                [f"{member.owner} ({member.step})" for member in entry.dropped] or "-",
                entry.pair_masks_reconstructed,
                score(model.accuracy) if model else "-",
                score(model.auc) if model else "-",
                f"{model.epsilon:.2f}" if model else "-",
                entry.reason or "-",
            )
        )
    answer_rows(
        output,
        None,
        title="rounds",
        columns=("round", "state", "cohort", "dropped", "masks rebuilt", "accuracy", "AUC", "epsilon", "reason"),
        rows=rows,
        right=("round", "cohort", "masks rebuilt", "accuracy", "AUC", "epsilon"),
    )
    answer_rows(
        output,
        None,
        title="what a member moves and what encoding costs",
        columns=("round", "up", "down", "bits a parameter", "clipped", "error of the mean", "E of a member"),
        rows=[(entry.round, *_moved(entry)) for entry in view.rounds],
        right=("round", "up", "down", "bits a parameter", "clipped", "error of the mean", "E of a member"),
    )
    write_line(f"models: lepton model list {view.job}")


def _moved(entry: RoundView) -> tuple[str, ...]:
    """Bytes of one member up and down, bits a parameter, and what encoding clipped and errs."""
    told = entry.encoding
    measured = told.clipped_members >= 0
    return (
        f"{entry.payload_bytes:,}",
        f"{told.bytes_down:,}" if told.bytes_down else "-",
        f"{told.bits_per_parameter:.2f}",
        f"{told.saturated_share:.1e}" if measured else f"expected {told.expected_saturation:.1e}",
        f"expected {told.expected_error:.1e}",
        f"{told.squared_error:.1e}" if measured else "-",
    )
