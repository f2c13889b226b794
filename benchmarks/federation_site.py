"""The processes of the federation benchmark: a coordinator and its owners' daemons, as `lepton` starts them.

A member's shard is its place among the sorted member ids, so shards are given out after enrolment.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.federation_digits import VOCABULARY, Digits
from lepton_admin.demo.child import THEN
from lepton_admin.demo.processes import Processes, free_port
from lepton_admin.federations import SIGNED_FILE, add_members, create_federation, sign_members
from lepton_admin.link import CoordinatorLink
from lepton_client.enrol import enrol, enrol_owner
from lepton_client.home import Home, load_identity
from lepton_client.membership import accept

_POLICY = """
[peers]
federation_key = "{key}"
minimum_cohort = 4

[[populations]]
name = "patients"
mapping = "{mapping}"
declared_rows = {rows}
modes = {modes}
epsilon = {epsilon}
delta = {delta}

[jobs]
purposes = ["research"]
concepts = ["{vocabulary}*"]
models = ["mlp", "logistic"]
expires = {expires}
allow_unprotected = true
allow_plain_updates = true
allow_error_feedback = true
"""


@dataclass(frozen=True)
class Budget:
    """What the owners' policies allow on their records."""

    modes: tuple[str, ...] = ("none",)
    epsilon: float = 8.0
    delta: float = 1e-4


@dataclass(frozen=True)
class Site:
    """A federation that runs."""

    researcher: CoordinatorLink
    processes: Processes
    #: Names of the daemons' processes.
    owners: tuple[str, ...]
    #: Their homes, in the same order.
    folders: tuple[Path, ...]

    def memory(self) -> tuple[float, int]:
        """MB of all processes and their children, shared pages counted once (Pss), and how many processes these are."""
        roots = [self.processes.pid(name) for name in ("coordinator", *self.owners)]
        family = with_children(roots)
        return sum(_pss_kb(pid) for pid in family) / 1024, len(family)


@contextlib.contextmanager
def federation(folder: Path, digits: Digits, members: int, budget: Budget = Budget()) -> Iterator[Site]:
    """Start everything from nothing, as the first time on a machine; leaving it ends every process."""
    with Processes(folder / "logs") as processes, contextlib.ExitStack() as stack:
        # 1. The coordinator makes its home and serves.
        home = folder / "coordinator"
        init = ("init", str(home), "--listen", f"127.0.0.1:{free_port()}", "--host", "127.0.0.1")
        processes.lepton("coordinator", "coordinator", *init, THEN, "coordinator", "serve", str(home))
        processes.wait_until((home / "address").is_file, "the coordinator's start", "coordinator")
        # 2. Owners and researcher enrol with keys of their own.
        owners = tuple(f"owner-{index}" for index in range(members))
        _enrol(folder, owners)
        # 3. The federation key signs who is a peer; every owner pins it and says what it allows.
        signed = _found(folder, owners, digits, budget)
        researcher = stack.enter_context(CoordinatorLink.of_profile(folder / "researcher"))
        researcher.publish_membership(signed.read_bytes())
        # 4. The daemons start.
        for owner in owners:
            processes.lepton(owner, "client", "run", str(folder / owner))
        yield Site(researcher, processes, owners, tuple(folder / owner for owner in owners))


def _enrol(folder: Path, owners: Sequence[str]) -> None:
    with CoordinatorLink.of_profile(folder / "coordinator" / "operator") as operator:
        invitations = {owner: operator.invite(owner, "owner", 600.0) for owner in owners}
        of_researcher = operator.invite("rosa", "researcher", 600.0)
    with ThreadPoolExecutor(4) as pool:
        enrolments = [pool.submit(enrol_owner, invitations[owner], folder / owner) for owner in owners]
        enrolments.append(pool.submit(enrol, of_researcher, folder / "researcher", None))
        for enrolment in enrolments:
            enrolment.result()


def _found(folder: Path, owners: Sequence[str], digits: Digits, budget: Budget) -> Path:
    key = create_federation(folder / "federation", "benchmark")
    add_members(folder / "federation", [Home(folder / owner).card for owner in owners])
    sign_members(folder / "federation", days=1)
    signed = folder / "federation" / SIGNED_FILE
    expires = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=1)
    by_member = sorted(owners, key=lambda owner: load_identity(Home(folder / owner)).member)
    for shard, owner in enumerate(by_member):
        policy = _POLICY.format(
            key=key,
            mapping=digits.mapping(shard),
            rows=digits.most_rows,
            vocabulary=VOCABULARY,
            expires=expires.isoformat(),
            modes=list(budget.modes),
            epsilon=budget.epsilon,
            delta=budget.delta,
        )
        (folder / owner / "policy.toml").write_text(policy, encoding="utf-8")
        accept(Home(folder / owner), signed)
    return signed


def with_children(roots: Sequence[int]) -> list[int]:
    """The processes and all that descend from them."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has just ended
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
    family = list(roots)
    for pid in family:  # grows while it is gone through
        family += [child for child, parent in parents.items() if parent == pid]
    return family


def _pss_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0
