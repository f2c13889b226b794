"""What an owner is shown of its own client: identity, peers, budgets and jobs, read while the daemon runs or not."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lepton_client.anchoring import alarm
from lepton_client.home import Home, load_home_policy, load_identity, load_settings
from lepton_client.ledger import derive_run, read_ledger
from lepton_client.membership import load_accepted
from lepton_client.pausing import paused
from lepton_client.records import read_jobs
from lepton_client.spending import budgets
from lepton_core.identity import fingerprint
from lepton_core.privacy.ledger import accounts_of


def status(folder: Path) -> dict[str, Any]:
    """The client's state as plain values; the ledger's chain and signatures are verified on the way.

    Raises:
        InputError: the folder is not a client's, or a file in it is wrong.
        ConflictError, IdentityError: the ledger's chain does not hold.
    """
    home = Home(folder)
    settings = load_settings(home)
    identity, policy = load_identity(home), load_home_policy(home, settings)
    entries = read_ledger(home.ledger, identity.public)
    accepted, pause = load_accepted(home), paused(home)
    charged: Counter[str] = Counter()
    for (_, run), account in accounts_of(entries):
        charged[run] += account.charged
    return {
        "owner": settings.owner,
        "member": identity.member.hex(),
        "fingerprint": fingerprint(identity.public),
        "paused": asdict(pause) if pause is not None else None,
        "membership": None
        if accepted is None
        else {
            "federation": accepted.members.federation,
            "version": accepted.members.version,
            "expires": accepted.members.expires,
            "members": len(accepted.members.admitted()),
        },
        "policy": {
            "minimum_cohort": policy.peers.minimum_cohort,
            "corruption": policy.peers.corruption,
            "purposes": list(policy.jobs.purposes),
            "models": list(policy.jobs.models),
            "expires": policy.jobs.expires.isoformat(),
            "allow_unprotected": policy.jobs.allow_unprotected,
            "allow_plain_updates": policy.jobs.allow_plain_updates,
            "allow_error_feedback": policy.jobs.allow_error_feedback,
        },
        "populations": budgets(policy, entries),
        "jobs": [
            {
                "job": job_id,
                "name": known.job.name,
                "purpose": known.job.purpose,
                "state": known.closed or "open",
                "rounds_charged": charged.get(derive_run(job_id, known.job), 0),
                "rounds_planned": known.job.training.rounds,
            }
            for job_id, known in read_jobs(home.jobs).items()
        ],
        "ledger_entries": len(entries),
        "ledger_alarm": alarm(home.anchor, entries, identity.public),
    }
