"""The privacy card of a job: what its models may have learnt, against whom that holds, and what it leaves open.

One page to lay beside a model, for people (Markdown) and for programs (JSON). Every number is worked out anew from the
canonical job and what the coordinator tells of its rounds; nothing is copied from what somebody wrote.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from lepton_core.job import Job
from lepton_core.privacy.accountant import Observer
from lepton_core.privacy.units import NEIGHBOURS, UNIT_SUBJECT
from lepton_core.views import JobView
from lepton_pool.promise import epsilon_after, epsilon_if_all_collude

FORMAT = "lepton/privacy-card/2"
#: Whom each mode keeps a record from.
_AGAINST = {
    "record-local": "everybody outside the {unit}'s own site, the coordinator and all other owners together included",
    "record-distributed": "everybody who sees the sums of the rounds, or a model made from them",
    "client-distributed": "everybody who sees the sums of the rounds, or a model made from them",
    "none": "nobody: without differential privacy the models may hold anything about anybody in the data",
}


@dataclass(frozen=True)
class Card:
    """What the card says; times and sizes that depend on records are not on it."""

    format: str
    job: str
    name: str
    #: SHA-256 (hex) of the canonical job, which owners signed for.
    job_digest: str
    state: str
    #: Newest released model version, and rounds that were completed and aborted.
    model_version: int
    rounds_completed: int
    rounds_aborted: int
    mode: str
    unit: str
    neighbours: str
    protects_against: str
    delta: float
    #: Upper bound for the whole job, that owners were promised; 0 without privacy.
    epsilon_promised: float
    #: Of the released models: the rounds whose sums made them.
    epsilon_released: float
    #: Of every round that was begun, had an owner trained in each; what its ledger says is the truth for that owner.
    epsilon_at_most: float
    #: Of what is released, against those who see the sums and no member's share of noise.
    epsilon_against_sums: float
    #: Of every round begun, against the coordinator and all other owners together.
    epsilon_under_collusion: float
    #: Members whose noise is surely in a sum, and how many of them may collude before epsilon grows; 0 and 0 where
    #: each site's noise is whole.
    noise_contributors: int
    colluders_tolerated: int
    mechanism: str
    noise_multiplier: float
    sampling_rate: float
    steps: int
    clip_norm: float
    accountant: str
    #: Fewest owners whose sum is ever revealed, and the share of colluders that the sums' secrecy withstands.
    least_cohort: int
    colluding_share: float
    masked: bool
    #: What the numbers above do not cover.
    beyond: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def privacy_card(job: Job, view: JobView) -> Card:
    """The card of a job as it stands now.

    Raises:
        InputError, RefusedError: numbers that the accountant cannot work with.
    """
    private = job.privacy.mode != "none"
    completed = sum(entry.state == "completed" for entry in view.rounds)
    aborted = sum(entry.state == "aborted" for entry in view.rounds)
    released, begun = (epsilon_after(job, rounds) for rounds in (completed, completed + aborted))
    training, privacy = job.training, job.privacy
    return Card(
        format=FORMAT,
        job=view.job,
        name=job.name,
        job_digest=job.digest().hex(),
        state=view.state.value,
        model_version=view.model_version,
        rounds_completed=completed,
        rounds_aborted=aborted,
        mode=privacy.mode,
        unit=privacy.unit,
        neighbours=NEIGHBOURS[privacy.unit],
        protects_against=_AGAINST[privacy.mode].format(unit=privacy.unit),
        delta=privacy.delta if private else 0.0,
        epsilon_promised=privacy.epsilon if private else 0.0,
        epsilon_released=released,
        epsilon_at_most=begun,
        epsilon_against_sums=epsilon_after(job, completed, Observer.SUMS),
        epsilon_under_collusion=epsilon_if_all_collude(job, completed + aborted),
        noise_contributors=job.aggregation.min_cohort if privacy.distributed else 0,
        colluders_tolerated=privacy.colluders,
        mechanism=_mechanism(job),
        noise_multiplier=privacy.noise_multiplier or 0.0,
        sampling_rate=training.record_rate if private else 0.0,
        steps=(1 if privacy.distributed else training.local_steps) * completed if private else 0,
        clip_norm=privacy.clip_norm if private else 0.0,
        accountant=_ACCOUNTANT["none" if not private else "sums" if privacy.distributed else "local"],
        least_cohort=job.aggregation.min_cohort,
        colluding_share=job.aggregation.corruption,
        masked=job.aggregation.secure,
        beyond=_beyond(job),
    )


_ACCOUNTANT = {
    "none": "none",
    "local": "privacy loss distributions, rounded up (dp-accounting)",
    "sums": "zero-concentrated differential privacy of sums of discrete Gaussians, and the optimal conversion",
}


def _mechanism(job: Job) -> str:
    privacy = job.privacy
    if privacy.mode == "none":
        return "none"
    noise = f"{privacy.noise_multiplier:g} times that"
    clipped = f"gradients clipped {privacy.unit} by {privacy.unit} to {privacy.clip_norm:g}"
    shares = (
        f"rotated, rounded, noised with integers and masked; the shares of any {job.aggregation.min_cohort} members "
        f"less {privacy.colluders} colluders make discrete Gaussian noise of {noise} in each sum"
    )
    if privacy.mode == "client-distributed":
        return f"each member's update clipped to {privacy.clip_norm:g}, {shares}"
    if privacy.mode == "record-distributed":
        taken = f"all {privacy.unit}s" if job.training.batching == "all" else f"a Poisson sample of the {privacy.unit}s"
        return f"one sum a round of {taken}, {clipped}, {shares}"
    return (
        f"DP-SGD at each site: Poisson samples of {privacy.unit}s, {clipped}, "
        f"Gaussian noise of {noise} in each step, drawn from the operating system"
    )


def card_markdown(card: Card) -> str:
    """The card as a page."""
    private = card.mode != "none"
    rows = [
        ("Job", f"{card.name} (`{card.job}`), {card.state}, model version {card.model_version}"),
        ("Job's hash", f"`{card.job_digest}`"),
        ("Mode", f"`{card.mode}`"),
        ("Protects", f"{card.unit}: {card.neighbours}" if private else "nobody"),
        ("Against", card.protects_against),
    ]
    if private:
        rows += [
            (
                "Epsilon of what is released",
                (
                    f"**{card.epsilon_released:.3f}** at delta {card.delta:g}, after {card.rounds_completed} rounds, "
                    f"{card.steps} steps"
                ),
            ),
            ("Epsilon promised for the whole job", f"{card.epsilon_promised:g}"),
            (
                "Epsilon at most, aborted rounds included",
                f"{card.epsilon_at_most:.3f}, after {card.rounds_completed + card.rounds_aborted} rounds",
            ),
            ("Epsilon against who sees sums only", f"{card.epsilon_against_sums:.3f}"),
            ("Colluders tolerated", _tolerated(card)),
            ("Epsilon if all others collude", f"{card.epsilon_under_collusion:.3f}"),
            ("Mechanism", card.mechanism),
            ("Noise multiplier, sampling rate", f"{card.noise_multiplier:g}, {card.sampling_rate:g}"),
            ("Accounting", card.accountant),
        ]
    secrecy = (
        f"sums of at least {card.least_cohort} owners are all that is revealed, while fewer than "
        f"{card.colluding_share:.0%} of them collude with the coordinator"
        if card.masked
        else "none: the coordinator sees every owner's update"
    )
    rows.append(("Secrecy of single owners' updates", secrecy))
    lines = [f"# Privacy card: {card.name}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in rows]
    lines += ["", "## What this does not cover", ""]
    lines += [f"- {line}" for line in card.beyond]
    return "\n".join(lines) + "\n"


def _tolerated(card: Card) -> str:
    if not card.noise_contributors:
        return "all others: each site's own noise is whole"
    return f"{card.colluders_tolerated} of at least {card.noise_contributors} members"


def _several(job: Job) -> str:
    if job.privacy.unit == UNIT_SUBJECT:
        return (
            "A person with records at two sites is counted twice: as one subject at each, with an epsilon of its own."
        )
    return "A person with records at two sites, or with several records at one: each record counts by itself."


def _beyond(job: Job) -> tuple[str, ...]:
    lines = [
        (
            "Other jobs on the same people: their epsilons compose, and each owner's own ledger knows them "
            "(`lepton privacy show`)."
        ),
        _several(job),
        "Jobs that were run to choose this one's settings.",
    ]
    if job.privacy.distributed:
        lines.insert(0, "More colluders than are tolerated: then the epsilon for all others colluding holds.")
    if job.privacy.unit == "member":
        lines[-2] = "Single records: each is hidden among its member's, whose whole update is protected."
    if job.model.initial is not None:
        lines.append("What the first weights, which came from a file, had learnt elsewhere.")
    if job.evaluation is not None:
        lines.append("The evaluation rows, which the researcher declares to be public.")
    return tuple(lines)
