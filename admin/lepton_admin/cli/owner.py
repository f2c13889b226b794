"""`lepton owner`: invite, list and revoke data owners."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lepton_admin.cli.answer import answer_record, answer_rows, moment
from lepton_admin.cli.options import Output, OutputFormat, Profile, noun_app, verb

app = noun_app("Invite, list and revoke data owners.")

InvitationFile = Annotated[
    Path, typer.Option("--file", help="Where to write the invitation. It is a secret until it is used.")
]
Hours = Annotated[float, typer.Option("--hours", help="How long the invitation can be used.", min=0.01, max=720)]


@verb(app, "invite", example="lepton owner invite aurora --file aurora.invitation --profile coordinator/operator")
def invite(
    name: Annotated[str, typer.Argument(help="The owner's name: a-z, 0-9 and inner hyphens.")],
    *,
    file: InvitationFile,
    hours: Hours = 1.0,
    profile: Profile,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Write a one-time invitation for a data owner to a file (0600); hand it over like a password."""
    answer_invitation(name, "owner", file=file, hours=hours, profile=profile, output=output)


@verb(app, "list", example="lepton owner list --profile coordinator/operator")
def list_owners(*, profile: Profile, output: Output = OutputFormat.TABLE) -> None:
    """List everybody who is enrolled, and who is connected now."""
    from lepton_admin.link import CoordinatorLink

    with CoordinatorLink.of_profile(profile) as link:
        owners = link.owners()
    answer_rows(
        output,
        owners,
        title="enrolled",
        columns=("name", "role", "member", "connected", "enrolled", "certificate until", "alarm"),
        rows=[
            (o.name, o.role, o.member or "-", o.connected, moment(o.enrolled), moment(o.certificate_expires), o.alarm)
            for o in owners
        ],
    )


@verb(app, "revoke", example="lepton owner revoke aurora --profile coordinator/operator")
def revoke(
    name: Annotated[str, typer.Argument(help="The enrolled name.")],
    *,
    profile: Profile,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Refuse this name's certificates from now on. Peers also need a new membership list without it."""
    from lepton_admin.link import CoordinatorLink

    with CoordinatorLink.of_profile(profile) as link:
        owner = link.revoke(name)
    answer_record(output, owner, title=f"revoked {owner.name}", fields={"role": owner.role, "member": owner.member})


def answer_invitation(name: str, role: str, *, file: Path, hours: float, profile: Path, output: OutputFormat) -> None:
    """Ask for an invitation, write it to the file, and say what to do with it."""
    from lepton_admin.invitations import write_invitation
    from lepton_admin.link import CoordinatorLink

    with CoordinatorLink.of_profile(profile) as link:
        invitation = link.invite(name, role, hours * 3600)
    write_invitation(file, invitation)
    home = "client enrol" if role == "owner" else "researcher enrol"
    answer_record(
        output,
        {"name": name, "role": role, "file": str(file), "expires": invitation.expires},
        title=f"invitation for {name}",
        fields={
            "file": str(file),
            "valid until": moment(invitation.expires),
            "CA fingerprint": invitation.ca_fingerprint,
            "next": f"hand the file to {name} over a safe way; there: lepton {home} {file.name} FOLDER",
        },
    )
