"""`lepton federation`: keep and sign the list of members; the key stays with you, never with the coordinator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lepton_admin.cli.answer import answer_record, answer_rows, moment
from lepton_admin.cli.options import Output, OutputFormat, Profile, noun_app, verb

if TYPE_CHECKING:
    from lepton_core.membership import ListedMember

app = noun_app("Keep and sign the list of members. The key stays with you, never with the coordinator.")

Folder = Annotated[Path, typer.Argument(help="The federation's folder.")]


@verb(app, "create", example="lepton federation create federation --name hospitals")
def create(
    folder: Folder,
    *,
    name: Annotated[str, typer.Option("--name", help="The federation's name; the folder's name by default.")] = "",
    output: Output = OutputFormat.TABLE,
) -> None:
    """Make a federation key (0600) and an empty list of members."""
    from lepton_admin.federations import create_federation

    public = create_federation(folder, name or folder.resolve().name)
    answer_record(
        output,
        {"folder": str(folder), "federation_key": public},
        title=f"federation in {folder}",
        fields={"federation key for every owner's policy.toml": public},
    )


@verb(app, "add", example="lepton federation add federation aurora/identity.json")
def add(
    folder: Folder,
    cards: Annotated[list[Path], typer.Argument(help="Identity cards that the owners' daemons wrote.")],
    *,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Add members by their identity cards. Compare the fingerprints with the owners by another way."""
    from lepton_admin.federations import add_members

    draft = add_members(folder, cards)
    _answer_members(output, draft.members, draft.federation)


@verb(app, "sign", example="lepton federation sign federation --days 90")
def sign(
    folder: Folder,
    *,
    days: Annotated[int, typer.Option("--days", help="How long the list is in force.", min=1, max=3_650)] = 90,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Sign the next version of the list; owners accept it with `lepton client accept`."""
    from lepton_admin.federations import SIGNED_FILE, sign_members

    signed = sign_members(folder, days)
    answer_record(
        output,
        {"file": str(folder / SIGNED_FILE), "version": signed.members.version, "digest": signed.members.digest()},
        title=f"version {signed.members.version} of {signed.members.federation}",
        fields={
            "members": len(signed.members.members),
            "in force until": moment(signed.members.expires),
            "file": str(folder / SIGNED_FILE),
            "next": f"hand the file to every owner, and: lepton federation publish {folder} --profile PROFILE",
        },
    )


@verb(app, "list", example="lepton federation list federation")
def list_members(folder: Folder, *, output: Output = OutputFormat.TABLE) -> None:
    """List the members with the fingerprints to compare."""
    from lepton_admin.federations import load_draft

    draft = load_draft(folder)
    _answer_members(output, draft.members, draft.federation)


@verb(app, "publish", example="lepton federation publish federation --profile researcher")
def publish(folder: Folder, *, profile: Profile, output: Output = OutputFormat.TABLE) -> None:
    """Hand the signed list to the coordinator, which carries it and cannot change it."""
    from lepton_admin.federations import SIGNED_FILE
    from lepton_admin.files import read_bytes
    from lepton_admin.link import CoordinatorLink

    signed = read_bytes(folder / SIGNED_FILE, "signed list")
    with CoordinatorLink.of_profile(profile) as link:
        digest = link.publish_membership(signed)
    answer_record(output, {"digest": digest}, title="published", fields={"digest": digest})


def _answer_members(output: OutputFormat, members: Sequence[ListedMember], federation: str) -> None:
    from lepton_admin.federations import described

    rows = described(members)
    answer_rows(
        output,
        {"federation": federation, "members": rows},
        title=f"members of {federation}",
        columns=("owner", "fingerprint"),
        rows=[(row["owner"], row["fingerprint"]) for row in rows],
    )
