"""What the demo found: one object for programs, one table for people."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lepton_admin.cli.answer import console, score, table
from lepton_admin.demo.baselines import POOLED, TOGETHER, Baseline
from lepton_admin.demo.power_loss import came_back, recovered
from lepton_core.job import Job
from lepton_core.privacy.units import NEIGHBOURS
from lepton_core.views import JobView, RoundView


@dataclass(frozen=True)
class Findings:
    """Everything that the report is made of."""

    job: JobView
    #: The job as its owners agreed to it.
    asked: Job
    baselines: Mapping[str, Baseline]
    #: Rounds charged in each owner's own ledger, and the epsilon that they come to.
    charged: Mapping[str, tuple[int, float]]
    #: The member that lost power.
    lost_owner: str
    model: Path
    #: The lost owner's report on its data; the others' lie in their folders too.
    quality: Path
    folder: Path
    seconds_total: float
    seconds_first_round: float


def as_document(found: Findings) -> dict[str, Any]:
    """The findings under the names that checks use."""
    from lepton_pool.promise import epsilon_if_all_collude

    job = found.job
    done = [view for view in job.rounds if view.state == "completed"]
    proved = recovered(job.rounds, found.lost_owner)
    newest = max(job.models, key=lambda model: model.version)
    pooled, local = found.baselines[POOLED], found.baselines[TOGETHER]
    return {
        "job": job.job,
        "rounds_completed": len(done),
        "rounds_aborted": sum(view.state == "aborted" for view in job.rounds),
        "owners": [
            {
                "name": match.owner,
                "rows": found.baselines[match.owner].rows_mapped,
                "rows_refused": found.baselines[match.owner].rows_refused,
                "accuracy_alone": found.baselines[match.owner].accuracy,
                "auc_alone": found.baselines[match.owner].auc,
                "rounds_charged": found.charged[match.owner][0],
                "epsilon": found.charged[match.owner][1],
            }
            for match in job.owners
            if match.state == "can"
        ],
        "refused": [
            {"name": match.owner, "reason": match.reason, "subject": match.subject}
            for match in job.owners
            if match.state == "cannot"
        ],
        "accuracy_federated": newest.accuracy,
        "auc_federated": newest.auc,
        "accuracy_pooled": pooled.accuracy,
        "auc_pooled": pooled.auc,
        "accuracy_record_local": local.accuracy,
        "auc_record_local": local.auc,
        "mode": found.asked.privacy.mode,
        "unit": found.asked.privacy.unit,
        "epsilon": max((epsilon for _, epsilon in found.charged.values()), default=0.0),
        "delta": job.delta,
        "epsilon_record_local": local.epsilon,
        "epsilon_if_all_collude": epsilon_if_all_collude(found.asked, len(done)),
        "bytes_per_parameter_up": job.bytes_per_parameter,
        "model_parameters": job.model_parameters,
        "protocol_message_bytes": sum(view.message_bytes for view in job.rounds),
        "protocol_message_bytes_per_member_and_round": _messages_per_member(done),
        "dropped_and_recovered": len(proved),
        "pair_masks_reconstructed": sum(view.pair_masks_reconstructed for view in proved),
        "lost": [_lost(view, found.lost_owner, job.rounds) for view in proved],
        "model": str(found.model),
        "quality": str(found.quality),
        "folder": str(found.folder),
        "seconds_total": round(found.seconds_total, 2),
        "seconds_first_round": round(found.seconds_first_round, 2),
    }


def show(found: Findings) -> None:
    """The findings as a table, and what to try next."""
    told = as_document(found)
    screen = console()
    pooled, local = found.baselines[POOLED], found.baselines[TOGETHER]
    names = {owner["name"]: f"{owner['name']} alone *" for owner in told["owners"]}
    names |= {POOLED: "all data pooled *", TOGETHER: "the federation *"}
    rows = [_row(name, found.baselines[key]) for key, name in names.items()]
    federation = Baseline(
        "the federation",
        told["mode"],
        pooled.rows_mapped,
        pooled.rows_refused,
        told["accuracy_federated"],
        told["auc_federated"],
        told["epsilon"],
    )
    rows.append(_row(federation.name, federation))
    columns = ("model trained by", "rows", "refused", "accuracy", "AUC", "mode", "epsilon")
    unit = f"{NEIGHBOURS[found.asked.privacy.unit]}, at delta {told['delta']:g}"
    title = f"on the same held-out patients; epsilon is for {unit}"
    screen.print(table(title, columns, rows, right=("rows", "refused", "accuracy", "AUC", "epsilon")), soft_wrap=True)
    lines = [
        "* computed by the demo beside the federation; no real site would release them: they spend every budget again.",
        f"Privacy: epsilon spent in mode {told['mode']}, for {unit}, by each owner's own ledger: "
        + ", ".join(f"{owner['name']} {owner['epsilon']:.2f}" for owner in told["owners"])
        + ".",
        (
            f"Noise: each hospital adds a share, and a sum of {found.asked.aggregation.min_cohort} or more has all of "
            f"it; in mode {local.mode} each adds all of it. Against a coordinator that all the other hospitals help, "
            f"a hospital's share alone keeps epsilon {told['epsilon_if_all_collude']:.2f} for {unit}."
        ),
        f"Upload: {told['bytes_per_parameter_up']:.2f} bytes a parameter, where float32 takes 4.00.",
        f"Protocol messages: {told['protocol_message_bytes_per_member_and_round']:,.0f} bytes a member and round.",
        *(f"Left out: {owner['name']}: {owner['reason']} {owner['subject']}" for owner in told["refused"]),
        *(_lost_words(lost) for lost in told["lost"]),
        f"Time: first round after {told['seconds_first_round']:.1f} s, all after {told['seconds_total']:.1f} s.",
    ]
    for line in lines:
        # On a terminal lines break between words; piped, a line stays a line.
        screen.print(line, markup=False, soft_wrap=not screen.is_terminal)
    # What is there to be copied is never broken.
    screen.print(f"Quality of each owner's data, for its own eyes: {found.quality}", markup=False, soft_wrap=True)
    screen.print(f"Model: {found.model}\n", markup=False, soft_wrap=True)
    screen.print("Next (the first while `lepton demo --keep` runs):", markup=False, soft_wrap=True)
    for command in next_commands(found):
        screen.print(f"  {command}", markup=False, soft_wrap=True)
    sys.stdout.flush()


def next_commands(found: Findings) -> list[str]:
    """Four commands to try; the first needs the coordinator to run (`--keep`)."""
    folder, data = found.folder, found.folder / "data"
    # `make demo` runs it from an environment that is not active.
    here = Path(sys.argv[0])
    lepton = str(here) if here.name == "lepton" and shutil.which("lepton") is None else "lepton"
    rows = f"--source {data / 'holdout.csv'} --mapping {data / 'holdout.yaml'} --ontology {data / 'ontology.ttl'}"
    return [
        f"{lepton} job show {found.job.job} --profile {folder / 'researcher'}",
        f"{lepton} model predict --model {found.model} {rows}",
        f"{lepton} client policy {folder / 'owners' / found.lost_owner}",
        f"{lepton} job try {data / 'job.toml'} --ontology {data / 'ontology.ttl'}",
    ]


def _row(name: str, model: Baseline) -> tuple[object, ...]:
    numbers = (model.rows_mapped, model.rows_refused, score(model.accuracy), score(model.auc))
    return (name, *numbers, model.mode, f"{model.epsilon:.2f}")


def _messages_per_member(rounds: list[RoundView]) -> float:
    members = sum(len(view.cohort) for view in rounds)
    return sum(view.message_bytes for view in rounds) / members if members else 0.0


def _lost(view: RoundView, owner: str, rounds: tuple[RoundView, ...]) -> dict[str, Any]:
    return {
        "owner": owner,
        "round": view.round,
        "step": next(lost.step for lost in view.dropped if lost.owner == owner),
        "survivors": list(view.survivors),
        "pair_masks_reconstructed": view.pair_masks_reconstructed,
        "came_back_in_round": came_back(rounds, owner, view.round),
    }


def _lost_words(lost: dict[str, Any]) -> str:
    back = lost["came_back_in_round"]
    return (
        f"Lost: {lost['owner']} in round {lost['round']}, before its upload; its {lost['pair_masks_reconstructed']} "
        f"pair masks were rebuilt, and the sum of {', '.join(lost['survivors'])} is exact; "
        + (f"it was back in round {back}." if back else "it did not come back in time.")
    )
