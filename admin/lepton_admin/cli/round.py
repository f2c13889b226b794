"""`lepton round`: why a round waits, ended or was aborted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lepton_admin.cli.answer import answer_record, moment
from lepton_admin.cli.options import Output, OutputFormat, Profile, noun_app, verb

if TYPE_CHECKING:
    from lepton_core.views import EncodingView

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
            "encoding": view.encoding.codec,
            "payload of a member": (
                f"{view.payload_bytes} bytes, {view.encoding.bits_per_parameter:.3g} bits a parameter"
            ),
            "download of a member": f"{view.encoding.bytes_down} bytes" if view.encoding.bytes_down else "-",
            "expected error of the mean": f"{view.encoding.expected_error:.2g} of the squared norm bound",
            **_measured(view.encoding),
            "decode self-test": (
                f"passed, off by {view.encoding.decode_residual:.2g}" if view.encoding.decode_residual >= 0 else "-"
            ),
            "protocol messages of all members": f"{view.message_bytes} bytes",
            "started": moment(view.started),
            "ended": moment(view.ended),
        },
    )


def _measured(encoding: EncodingView) -> dict[str, str]:
    """What the sum has told of encoding, if it has."""
    if encoding.clipped_members < 0:
        return {"clipped": f"expected {encoding.expected_saturation:.2g} of the values; nothing is measured"}
    return {
        "clipped": (
            f"{encoding.clipped_members} members by norm; {encoding.saturated_share:.2g} of the values, "
            f"expected {encoding.expected_saturation:.2g}"
        ),
        "squared error of a member, E": f"{encoding.squared_error:.3g}",
    }
