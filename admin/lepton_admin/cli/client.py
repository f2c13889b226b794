"""`lepton client`: the daemon beside an owner's data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lepton_admin.cli.answer import answer_record, answer_rows, bound, moment
from lepton_admin.cli.options import Output, OutputFormat, noun_app, verb

app = noun_app("The daemon beside an owner's data.")

HomeFolder = Annotated[Path, typer.Argument(metavar="HOME", help="The client's folder.")]


@verb(app, "enrol", example="lepton client enrol aurora.invitation aurora")
def enrol(
    invitation: Annotated[Path, typer.Argument(help="The invitation file from the coordinator's operator.")],
    home: HomeFolder,
    *,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Make this owner's keys here, have the TLS key certified, and write the identity card for the federation."""
    from lepton_client.enrol import enrol_owner, load_invitation

    enrolled = enrol_owner(load_invitation(invitation), home)
    answer_record(
        output,
        enrolled,
        title=f"enrolled as {enrolled.name}",
        fields={
            "coordinator": enrolled.address,
            "fingerprint, to compare by voice": enrolled.fingerprint,
            "card for the federation": str(home / "identity.json"),
            "next": f"write {home / 'policy.toml'}, accept the federation's list, then: lepton client run {home}",
        },
    )


@verb(app, "accept", example="lepton client accept aurora federation/signed.json")
def accept(
    home: HomeFolder,
    signed_list: Annotated[Path, typer.Argument(help="The list that the federation signed.")],
    *,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Accept a membership list signed by the federation key in your policy, and show whom it admits."""
    from lepton_admin.federations import described
    from lepton_client.home import Home
    from lepton_client.membership import accept as accept_list

    members = accept_list(Home(home), signed_list)
    rows = described(members.members)
    answer_rows(
        output,
        {"federation": members.federation, "version": members.version, "expires": members.expires, "members": rows},
        title=f"accepted version {members.version} of {members.federation}, in force until {moment(members.expires)}",
        columns=("owner", "fingerprint"),
        rows=[(row["owner"], row["fingerprint"]) for row in rows],
    )


@verb(app, "run", example="lepton client run aurora")
def run(home: HomeFolder) -> None:
    """Run the daemon until SIGTERM or Ctrl-C. It only ever dials out."""
    import asyncio

    from lepton_client.daemon import run as run_daemon

    asyncio.run(run_daemon(home))


@verb(app, "status", example="lepton client status aurora")
def status(home: HomeFolder, *, output: Output = OutputFormat.TABLE) -> None:
    """Show what this owner's privacy ledger says: spent and left, population by population, and the jobs seen."""
    from lepton_client.status import status as status_of

    told = status_of(home)
    listed = told["membership"]
    answer_record(
        output,
        told,
        title=f"client in {home}",
        fields={
            "owner": told["owner"],
            "fingerprint": told["fingerprint"],
            "takes part": "yes, as the policy allows"
            if told["paused"] is None
            else f"no: paused since {moment(told['paused']['since'])}: {told['paused']['reason']}",
            "accepted list": f"version {listed['version']} of {listed['federation']}, {listed['members']} members, "
            f"until {moment(listed['expires'])}"
            if listed
            else "none yet: lepton client accept",
            "ledger": f"{told['ledger_entries']} entries, every one verified",
            **({"LEDGER ALARM": told["ledger_alarm"]} if told["ledger_alarm"] else {}),
        },
    )
    if output is OutputFormat.JSON:
        return
    answer_rows(
        output,
        None,
        title="privacy budgets, for one unit, over all jobs together",
        columns=("population", "unit", "delta", "epsilon spent", "left", "of"),
        rows=[
            (
                budget["population"],
                budget["unit"],
                budget["delta"],
                bound(budget["epsilon_spent"]),
                f"{budget['epsilon_left']:.3f}",
                budget["epsilon_budget"],
            )
            for budget in told["populations"]
        ],
        right=("delta", "epsilon spent", "left", "of"),
    )
    answer_rows(
        output,
        None,
        title="jobs",
        columns=("job", "purpose", "state", "rounds charged", "planned"),
        rows=[(j["job"], j["purpose"], j["state"], j["rounds_charged"], j["rounds_planned"]) for j in told["jobs"]],
        right=("rounds charged", "planned"),
    )


@verb(app, "preview", example="lepton client preview aurora job.toml")
def preview(
    home: HomeFolder,
    job: Annotated[Path, typer.Argument(metavar="JOB", help="A job file, or the canonical job of one handed in.")],
    *,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Show what a job would do here: what would leave, at which epsilon, to whom. Nothing is charged or sent."""
    from lepton_admin.submission import resolve_offline
    from lepton_client.preview import preview as preview_of
    from lepton_core.ports import SystemClock

    told = preview_of(home, resolve_offline(job), SystemClock())
    private = told.mode != "none"
    refusal = told.refusal
    answer_record(
        output,
        told,
        title=f"{told.job} at {home}",
        fields={
            "would be": "let in by policy, peers and budget; the mapping is checked when the job comes"
            if refusal is None
            else f"refused: {refusal['message']} ({refusal.get('reason') or refusal['code']})",
            **({"expected": refusal["expected"]} if refusal and refusal.get("expected") else {}),
            **({"got": refusal["got"]} if refusal and refusal.get("got") else {}),
            "purpose": told.purpose,
            "reads": f"population {told.population}: {', '.join(told.concepts)}",
            "leaves in each of the rounds": (
                f"{told.payload_bytes:,} bytes of {'masked sums' if told.masked else 'the update itself'} "
                f"({told.encoding}), keys, shares and signatures"
            ),
            "rounds": told.rounds,
            "never leaves": "rows, their number, column names, losses, counts",
            "epsilon of the job": f"{told.epsilon_of_job:.3f} at delta {told.delta:g} for one {told.unit}, {told.mode}"
            if private
            else "none: nothing is protected",
            **(
                {
                    "if rounds are repeated or lost": (
                        f"at most {told.epsilon_at_most:.3f}, with {told.most_unpublished} more; "
                        "then every further round is refused"
                    )
                }
                if private
                else {}
            ),
            **(
                {
                    "noise": (
                        f"in shares: the promise needs {told.noise_contributors} members in every sum, of whom "
                        f"{told.colluders_tolerated} may collude; if all others do, epsilon is "
                        f"{told.epsilon_if_all_collude:.3f}"
                    )
                }
                if told.noise_contributors
                else {"noise": "whole at this site, whatever all others do"}
                if private
                else {}
            ),
            "epsilon spent, and with the job": (
                f"{bound(told.epsilon_spent)}, {bound(told.epsilon_after)} of {told.epsilon_budget:g} "
                f"for one {'subject' if told.unit == 'subject' else 'record'}"
            ),
            **(
                {
                    "for one record, with the job": (
                        f"{bound(told.record_epsilon_after)} of {told.record_epsilon_budget:g}"
                    )
                }
                if told.unit == "subject"
                else {}
            ),
            "to": f"the coordinator at {told.coordinator}, as sums of at least {told.least_cohort} owners"
            if told.masked
            else f"the coordinator at {told.coordinator}",
        },
    )
    if output is OutputFormat.JSON:
        return
    answer_rows(
        output,
        None,
        title="peers whose updates are added up with this owner's",
        columns=("owner", "fingerprint"),
        rows=told.peers,
    )


@verb(app, "pause", example="lepton client pause aurora --reason 'audit of the mapping'")
def pause(
    home: HomeFolder,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why, for this site's records; it is told to nobody.")] = "",
    output: Output = OutputFormat.TABLE,
) -> None:
    """Take part in nothing from now on, with the daemon running or not; what is being trained does not leave."""
    from lepton_client.home import Home
    from lepton_client.pausing import pause as pause_client
    from lepton_core.ports import SystemClock

    told = pause_client(Home(home), reason, SystemClock())
    answer_record(
        output,
        told,
        title=f"client in {home} is paused",
        fields={
            "since": moment(told.since),
            "reason": told.reason or "-",
            "to go on": f"lepton client resume {home}",
        },
    )


@verb(app, "resume", example="lepton client resume aurora")
def resume(home: HomeFolder, *, output: Output = OutputFormat.TABLE) -> None:
    """Take part again, as the policy allows."""
    from lepton_client.home import Home
    from lepton_client.pausing import resume as resume_client

    told = resume_client(Home(home))
    answer_record(
        output,
        {"was_paused": told is not None, "since": told.since if told is not None else 0.0},
        title=f"client in {home} takes part",
        fields={"was paused": f"since {moment(told.since)}" if told is not None else "no"},
    )


@verb(app, "policy", example="lepton client policy aurora")
def policy(home: HomeFolder, *, output: Output = OutputFormat.TABLE) -> None:
    """Show the policy in words: who may be a peer, what jobs may ask, and the budget they share."""
    from lepton_admin.policy_words import policy_words
    from lepton_client.home import Home, load_home_policy, load_settings

    place = Home(home)
    loaded = load_home_policy(place, load_settings(place))
    answer_rows(
        output,
        loaded.model_dump(mode="json"),
        title=f"policy of {home}",
        columns=("about", "rule"),
        rows=policy_words(loaded),
    )
