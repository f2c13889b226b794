"""`lepton round`: why a round waits, ended or was aborted."""

from __future__ import annotations

from typing import Annotated

import typer

from lepton_admin.cli.answer import answer_record, moment
from lepton_admin.cli.options import Output, OutputFormat, Profile, noun_app, verb

app = noun_app("Why a round waits, ended or was aborted.")


@verb(app, "show", example="lepton round show hospitals-3f9a 7 --profile researcher")
def show(
    job: Annotated[str, typer.Argument(help="The job's id, as `lepton job list` shows it.")],
    number: Annotated[int, typer.Argument(metavar="[ROUND]", help="The round; 0 is the newest.", min=0)] = 0,
    *,
    profile: Profile,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Show one round: its step, who is waited for, who dropped out and why."""
    from lepton_admin.link import CoordinatorLink

    with CoordinatorLink.of_profile(profile) as link:
        view = link.round(job, number)
    answer_record(
        output,
        view,
        title=f"round {view.round} of {view.job}",
        fields={
            "state": f"{view.state} ({view.step})",
            "reason": view.reason or "-",
            "trains on model version": view.model_version,
            "cohort": view.cohort,
            "waits for": view.waiting_for or "nobody",
            "in the sum": view.survivors,
            "dropped": [f"{member.owner} at {member.step}: {member.reason}" for member in view.dropped] or "nobody",
            "pair masks reconstructed": view.pair_masks_reconstructed,
            "masked payload of a member": f"{view.payload_bytes} bytes",
            "protocol messages of all members": f"{view.message_bytes} bytes",
            "started": moment(view.started),
            "ended": moment(view.ended),
        },
    )
