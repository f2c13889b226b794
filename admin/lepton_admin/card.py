"""The privacy card of a job: what its models may have learnt, against whom that holds, and what it leaves open.

One page to lay beside a model, for people (Markdown) and for programs (JSON). Every number is worked out anew from the
canonical job and what the coordinator tells of its rounds; nothing is copied from what somebody wrote.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from lepton_core.job import Job
from lepton_core.privacy.accountant import epsilon_of
from lepton_core.privacy.events import SampledGaussian
from lepton_core.views import JobView

FORMAT = "lepton/privacy-card/1"
#: Whom each mode keeps a record from.
_AGAINST = {
    "record-local": "everybody outside the record's own site, the coordinator and all other owners together included",
    "none": "nobody: without differential privacy the models may hold anything about anybody in the data",
}
_NEIGHBOURS = "one record, added or removed"


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
    #: Against the coordinator and all other owners together.
    epsilon_under_collusion: float
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
    released, begun = (_epsilon(job, rounds) for rounds in (completed, completed + aborted))
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
        neighbours=_NEIGHBOURS,
        protects_against=_AGAINST[privacy.mode],
        delta=privacy.delta if private else 0.0,
        epsilon_promised=privacy.epsilon if private else 0.0,
        epsilon_released=released,
        epsilon_at_most=begun,
        # Each site's own noise holds whatever the others do.
        epsilon_under_collusion=begun,
        mechanism=(
            f"DP-SGD at each site: Poisson samples, gradients clipped record by record to {privacy.clip_norm:g}, "
            f"Gaussian noise of {privacy.noise_multiplier:g} times that in each step, drawn from the operating system"
            if private
            else "none"
        ),
        noise_multiplier=privacy.noise_multiplier or 0.0,
        sampling_rate=training.sampling_rate if private else 0.0,
        steps=training.local_steps * completed if private else 0,
        clip_norm=privacy.clip_norm if private else 0.0,
        accountant="privacy loss distributions, rounded up (dp-accounting)" if private else "none",
        least_cohort=job.aggregation.min_cohort,
        colluding_share=job.aggregation.corruption,
        masked=job.aggregation.secure,
        beyond=_beyond(job),
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


def _epsilon(job: Job, rounds: int) -> float:
    if job.privacy.mode == "none" or not rounds or job.privacy.noise_multiplier is None:
        return 0.0
    steps = rounds * job.training.local_steps
    spent = SampledGaussian(job.privacy.noise_multiplier, job.training.sampling_rate, steps)
    return epsilon_of([spent], job.privacy.delta)


def _beyond(job: Job) -> tuple[str, ...]:
    lines = [
        (
            "Other jobs on the same people: their epsilons compose, and each owner's own ledger knows them "
            "(`lepton privacy show`)."
        ),
        "A person with records at two sites, or with several records at one: each record counts by itself.",
        "Jobs that were run to choose this one's settings.",
    ]
    if job.model.initial is not None:
        lines.append("What the first weights, which came from a file, had learnt elsewhere.")
    if job.evaluation is not None:
        lines.append("The evaluation rows, which the researcher declares to be public.")
    return tuple(lines)
