"""An owner's policy in sentences, so that the person who answers for it need not read TOML."""

from __future__ import annotations

from lepton_client.policy import Policy, Population


def policy_words(policy: Policy) -> list[tuple[str, str]]:
    """What each rule is about, and the rule."""
    peers, jobs = policy.peers, policy.jobs
    who = (
        f"only members on a list signed by the federation key {peers.federation_key}"
        if peers.federation_key is not None
        else f"only the {len(peers.members or ())} members pinned by their identity keys"
    )
    rules = [
        ("peers", f"Secret sums are formed with {who}."),
        ("cohort", f"A sum of fewer than {peers.minimum_cohort} owners is never revealed."),
        (
            "collusion",
            f"The protocol holds while fewer than {peers.corruption:.0%} of the members collude with the coordinator.",
        ),
    ]
    for population in policy.populations:
        rules += [
            (
                f"budget of {population.name}",
                f"All jobs together may cost a record at most {_price(population)}; then everything is refused.",
            ),
            (f"subjects of {population.name}", _subjects(population)),
            (f"privacy of {population.name}", f"Allowed: {', '.join(population.modes)}."),
            (
                f"size of {population.name}",
                f"Declared as about {population.declared_rows} records; the true number is told to nobody.",
            ),
            (f"data of {population.name}", f"Read through the approved mapping {population.mapping}."),
        ]
    rules += [
        ("purposes", f"Allowed: {', '.join(jobs.purposes)}."),
        ("concepts", f"Allowed: {', '.join(jobs.concepts)}."),
        ("models", f"Allowed: {', '.join(jobs.models)}."),
        ("rounds", f"At most {jobs.max_rounds} a job."),
        ("expiry", f"After {jobs.expires.isoformat()} everything is refused."),
        (
            "unprotected jobs",
            "ALLOWED: exact sums without privacy noise may leave." if jobs.allow_unprotected else "Refused.",
        ),
        (
            "updates without masks",
            "ALLOWED: the coordinator may see this owner's updates." if jobs.allow_plain_updates else "Refused.",
        ),
        (
            "error feedback",
            "ALLOWED: what a round leaves out of an update is kept here until it is sent."
            if jobs.allow_error_feedback
            else "Refused.",
        ),
    ]
    return rules


def _subjects(population: Population) -> str:
    if population.subject_epsilon is None:
        return "Only records are protected: one person's records count one by one."
    declared = (
        f"Declared as about {population.declared_subjects} subjects."
        if population.declared_subjects is not None
        else "Their number is not declared, so that every job is refused."
    )
    return (
        f"Only jobs that protect a subject with all its records; together at most epsilon "
        f"{population.subject_epsilon:g} at delta {population.delta:g}. {declared}"
    )


def _price(population: Population) -> str:
    return f"epsilon {population.epsilon:g} at delta {population.delta:g}"
