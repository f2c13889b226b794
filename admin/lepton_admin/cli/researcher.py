"""`lepton researcher`: invite a researcher, and enrol as one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lepton_admin.cli.answer import answer_record
from lepton_admin.cli.options import Output, OutputFormat, Profile, noun_app, verb
from lepton_admin.cli.owner import Hours, InvitationFile, answer_invitation

app = noun_app("Invite a researcher, and enrol as one.")


@verb(app, "invite", example="lepton researcher invite rosa --file rosa.invitation --profile coordinator/operator")
def invite(
    name: Annotated[str, typer.Argument(help="The researcher's name: a-z, 0-9 and inner hyphens.")],
    *,
    file: InvitationFile,
    hours: Hours = 1.0,
    profile: Profile,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Write a one-time invitation for a researcher to a file (0600); hand it over like a password."""
    answer_invitation(name, "researcher", file=file, hours=hours, profile=profile, output=output)


@verb(app, "enrol", example="lepton researcher enrol rosa.invitation researcher")
def enrol(
    invitation: Annotated[Path, typer.Argument(help="The invitation file from the operator.")],
    folder: Annotated[Path, typer.Argument(help="Folder for your key and certificate; later your --profile.")],
    *,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Make a key here, have it certified, and remember the coordinator."""
    from lepton_client.enrol import enrol as enrol_person
    from lepton_client.enrol import load_invitation

    enrolled = enrol_person(load_invitation(invitation), folder, None)
    answer_record(
        output,
        enrolled,
        title=f"enrolled as {enrolled.name}",
        fields={"folder": str(folder), "next": f"export LEPTON_PROFILE={folder}"},
    )
