"""`lepton privacy`: what an owner's budgets were spent on, what a plan costs, and whether the ledger holds."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lepton_admin.cli.answer import answer_record, answer_rows, bound, moment
from lepton_admin.cli.options import Output, OutputFormat, noun_app, verb

if TYPE_CHECKING:
    from lepton_client.exported import Verified
    from lepton_core.privacy.plan import LocalPlan, SumsPlan

app = noun_app("What an owner's budgets have been spent on, what a plan costs, and whether the ledger holds.")


class PlannedUnit(Enum):
    """Whom a plan is made for."""

    RECORD = "record"
    SUBJECT = "subject"


HomeFolder = Annotated[Path, typer.Argument(metavar="HOME", help="The client's folder.")]


@verb(app, "show", example="lepton privacy show aurora")
def show(home: HomeFolder, *, output: Output = OutputFormat.TABLE) -> None:
    """Show each population's budget, and what every job has taken of it."""
    from lepton_client.spending import spending

    told = spending(home)
    if told["ledger_alarm"] and output is OutputFormat.TABLE:
        typer.secho(told["ledger_alarm"], fg="red", err=True)
    answer_rows(
        output,
        told,
        title="budgets: epsilon for one unit, added or removed, over all jobs together",
        columns=(
            "population",
            "unit",
            "delta",
            "rounds charged",
            "spent, who sees sums",
            "spent, colluders",
            "left",
            "of",
        ),
        rows=[
            (
                one["population"],
                one["unit"],
                one["delta"],
                one["rounds_charged"],
                bound(one["epsilon_against_sums"]),
                bound(one["epsilon_spent"]),
                f"{one['epsilon_left']:.3f}",
                one["epsilon_budget"],
            )
            for one in told["populations"]
        ],
        right=("delta", "rounds charged", "spent, who sees sums", "spent, colluders", "left", "of"),
    )
    if output is OutputFormat.JSON:
        return
    answer_rows(
        output,
        None,
        title="jobs; alone each would cost its own epsilon, together they cost less than the sum",
        columns=(
            "population",
            "job",
            "unit",
            "mechanism",
            "rounds charged",
            "sent",
            "published",
            "given back",
            "epsilon alone",
        ),
        rows=[
            (
                one["population"],
                one["job"],
                one["unit"],
                one["mechanism"],
                one["rounds_charged"],
                one["rounds_sent"],
                one["rounds_published"],
                one["rounds_released"],
                f"{one['epsilon_alone']:.3f}",
            )
            for one in told["jobs"]
        ],
        right=("rounds charged", "sent", "published", "given back", "epsilon alone"),
    )


@verb(app, "plan", example="lepton privacy plan --epsilon 2 --delta 1e-4 --rounds 100 --members 10 --colluders 1")
def plan(
    *,
    epsilon: Annotated[float, typer.Option("--epsilon", help="Epsilon to keep for one unit, added or removed.")],
    delta: Annotated[float, typer.Option("--delta", help="Delta, between 0 and 1; below one over the records.")],
    rounds: Annotated[int, typer.Option("--rounds", help="Rounds of the job.", min=1)],
    members: Annotated[
        int | None,
        typer.Option(
            "--members", help="Noise in shares, by the fewest members of a sum; else all at each site.", min=3
        ),
    ] = None,
    colluders: Annotated[
        int, typer.Option("--colluders", help="Of them, members that may tell the coordinator their shares.", min=0)
    ] = 0,
    local_steps: Annotated[int, typer.Option("--local-steps", help="Private steps in a round.", min=1)] = 1,
    sampling_rate: Annotated[float, typer.Option("--sampling-rate", help="Chance of a unit to be in a step.")] = 1.0,
    unit: Annotated[
        PlannedUnit, typer.Option("--unit", help="Whom the promise is to: a record, or a subject with all its records.")
    ] = PlannedUnit.RECORD,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Work out the noise that keeps an epsilon, and how epsilon grows round by round; needs no coordinator."""
    from lepton_core.errors import InputError
    from lepton_core.privacy.plan import plan_local, plan_sums
    from lepton_core.privacy.units import NEIGHBOURS

    fields: dict[str, object]
    if members is not None:
        if local_steps != 1 or colluders >= members:
            key = "--local-steps" if local_steps != 1 else "--colluders"
            raise InputError(
                "noise in shares is for one sum a round, with honest members in it",
                where=key,
                expected="1" if local_steps != 1 else f"fewer than {members}",
                got=str(local_steps if local_steps != 1 else colluders),
                hint="leave --members out for noise at each site" if local_steps != 1 else "",
            )
        sums = plan_sums(epsilon, delta, rounds, contributors=members, colluders=colluders, sampling_rate=sampling_rate)
        planned: LocalPlan | SumsPlan = sums
        title = "a plan in the mode record-distributed"
        fields = {
            "noise multiplier": f"{sums.noise_multiplier:g}, in a sum of the shares of {members - colluders} members",
            "a member's share": f"{sums.share_multiplier:.3g} times the sensitivity",
            "protects": f"{NEIGHBOURS[unit.value]}, against everybody who sees the sums",
            "epsilon": f"{sums.epsilon:.3f} at delta {delta:g}, after {rounds} rounds, {colluders} members colluding",
            "epsilon against who sees sums only": f"{sums.epsilon_against_sums:.3f}",
            "epsilon if all others collude": f"{sums.epsilon_if_all_collude:.3f}",
        }
    else:
        if colluders:
            raise InputError("colluders of nobody", where="--colluders", hint="give --members as well")
        local = plan_local(epsilon, delta, rounds, local_steps=local_steps, sampling_rate=sampling_rate)
        planned, title = local, "a plan in the mode record-local"
        fields = {
            "noise multiplier": f"{local.noise_multiplier:g}, at each site and step",
            "protects": f"{NEIGHBOURS[unit.value]}, against everybody outside its site",
            "epsilon": f"{local.epsilon:.3f} at delta {delta:g}, after {rounds} rounds of {local_steps} steps",
        }
    if unit is PlannedUnit.SUBJECT:
        fields["epsilon for one record of a subject"] = f"{planned.epsilon_if_replaced:.3f}; that budget bears it too"
    answer_record(output, planned, title=title, fields=fields)
    if output is OutputFormat.JSON:
        return
    answer_rows(
        output,
        None,
        title="epsilon by round",
        columns=("after round", "epsilon"),
        rows=[(number, f"{spent:.3f}") for number, spent in planned.by_round],
        right=("after round", "epsilon"),
    )


@verb(app, "verify", example="lepton privacy verify aurora")
def verify(
    place: Annotated[Path, typer.Argument(metavar="HOME|FILE", help="The client's folder, or an exported ledger.")],
    *,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Check every link and signature of the ledger, in its folder or as it was exported."""
    from lepton_client.exported import verify_export, verify_home
    from lepton_client.home import Home

    _answer(verify_export(place) if place.is_file() else verify_home(Home(place)), "the ledger holds", output)


@verb(app, "export", example="lepton privacy export aurora aurora-ledger.json")
def export(
    home: HomeFolder,
    target: Annotated[Path, typer.Argument(metavar="FILE", help="A new file for the copy.")],
    *,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Write a signed copy of the whole ledger, for the archive and for whoever audits it."""
    from lepton_client.exported import export_ledger
    from lepton_client.home import Home
    from lepton_core.ports import SystemClock

    _answer(export_ledger(Home(home), target, SystemClock()), f"exported to {target}", output)


@verb(
    app,
    "restore",
    example='lepton privacy restore aurora aurora-ledger.json --predecessor "1f2e 3d4c 5b6a 7988 97a6 b5c4 d3e2 f100"',
)
def restore(
    home: HomeFolder,
    export: Annotated[Path, typer.Argument(metavar="FILE", help="What `lepton privacy export` wrote on the old one.")],
    *,
    predecessor: Annotated[
        str, typer.Option("--predecessor", help="Fingerprint of the lost identity, as the federation's list has it.")
    ],
    output: Output = OutputFormat.TABLE,
) -> None:
    """Go on with a lost machine's ledger in a newly enrolled client: a new identity, and the budget that is left."""
    from lepton_client.home import Home
    from lepton_client.restored import restore_ledger
    from lepton_core.ports import SystemClock

    _, verified = restore_ledger(Home(home), export, predecessor, SystemClock())
    _answer(verified, "the ledger goes on", output)


@verb(
    app,
    "open",
    example='lepton privacy open aurora outpatients --disjoint --reason "another clinic, registered since 2026"',
)
def open_(
    home: HomeFolder,
    population: Annotated[str, typer.Argument(metavar="POPULATION", help="Its name in the policy.")],
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why it is another one; kept in the ledger for audits.")],
    disjoint: Annotated[
        bool, typer.Option("--disjoint", help="Declare that it holds none of the people of those charged before.")
    ] = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Give a further population a budget of its own, declared to hold none of the people of those before."""
    from lepton_client.opened import known_populations, open_population
    from lepton_core.errors import InputError
    from lepton_core.ports import SystemClock

    if not disjoint:
        raise InputError(
            "a population with a budget of its own must hold other people",
            where="--disjoint",
            expected=f"none of the people of {', '.join(known_populations(home)) or 'any other'}",
            hint="if that is so, repeat the command with --disjoint; else use the known name in the policy",
        )
    opening = open_population(home, population, reason, SystemClock())
    answer_record(
        output,
        opening.document(),
        title=f"{population} is open",
        fields={
            "declared disjoint from": ", ".join(opening.disjoint_from) or "none, it is the first",
            "reason": opening.reason,
            "ledger entry": opening.sequence,
            "time": moment(opening.time),
        },
    )


def _answer(verified: Verified, title: str, output: OutputFormat) -> None:
    told = verified.summary()
    answer_record(
        output,
        told,
        title=title,
        fields={
            "owner": told["owner"],
            "fingerprint": told["fingerprint"],
            "entries": f"{told['entries']}, of {told['rounds_charged']} rounds; every link and signature checked",
            **({"succeeds": ", ".join(told["predecessors"])} if told["predecessors"] else {}),
            "head": told["head"],
            **({"exported": moment(verified.exported)} if verified.exported else {}),
        },
    )
