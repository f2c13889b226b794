"""Setting the scene, with the same calls that the commands make: coordinator, invitations, owners, federation."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lepton_admin.demo.child import THEN
from lepton_admin.demo.folder import DemoFolder, example_folder
from lepton_admin.demo.processes import Processes, free_port
from lepton_admin.federations import SIGNED_FILE, add_members, create_federation, sign_members
from lepton_admin.invitations import write_invitation
from lepton_admin.link import CoordinatorLink
from lepton_client.enrol import enrol, enrol_owner, load_invitation
from lepton_client.home import Home
from lepton_client.membership import accept

OPERATOR, RESEARCHER = "operator", "rosa"
#: The five hospitals, and the one whose data cannot serve the job.
HOSPITALS = ("aurora", "birken", "changhe", "delta-clinic", "elm-park")
REFUSED = "fjord"
OWNERS = (*HOSPITALS, REFUSED)
#: Rounded, as a policy wants it: batch denominators come from these public numbers.
DECLARED_ROWS = {"aurora": 100, "birken": 90, "changhe": 80, "delta-clinic": 70, "elm-park": 55, "fjord": 40}
#: Budget of each population: the demo's job of epsilon 1 fits, and once more with `--reuse`; a third run is refused.
BUDGET_EPSILON, BUDGET_DELTA = 1.7, 1e-4
INVITATION_S = 600.0

POLICY = """# What {owner} allows. `lepton client policy` tells it in words; unknown keys are refused.
[peers]
federation_key = "{federation_key}"
minimum_cohort = 4
corruption = 0.1

[[populations]]
name = "patients"
mapping = "{mapping}"
declared_rows = {rows}
signed_mapping = true
modes = ["record-distributed"]
epsilon = {epsilon}
delta = {delta}

[jobs]
purposes = ["research"]
concepts = ["https://example.org/hospitals/*"]
models = ["logistic", "mlp"]
expires = {expires}
max_rounds = 200
"""


def start_coordinator(folder: DemoFolder, processes: Processes) -> None:
    """Make the coordinator's home and serve it, in one process; returns at once."""
    listen = f"127.0.0.1:{free_port()}"
    home = str(folder.coordinator)
    addresses = ("--listen", listen, "--bulk", "127.0.0.1:0", "--host", "127.0.0.1", "--host", "localhost")
    init = ("coordinator", "init", home, *addresses)
    processes.lepton("coordinator", *init, THEN, "coordinator", "serve", home)


def write_data(folder: DemoFolder, processes: Processes, seed: int) -> None:
    """Write the hospitals' files, in a process of its own; returns at once."""
    script = example_folder() / "make_data.py"
    processes.lepton("data", "--file", str(script), str(folder.data), "--seed", str(seed))


def enrol_everybody(folder: DemoFolder, operator: CoordinatorLink) -> None:
    """Invite six owners and a researcher, and enrol them all at once; each makes its keys in its own folder."""
    folder.invitations.mkdir(exist_ok=True)
    for name, role in (*((owner, "owner") for owner in OWNERS), (RESEARCHER, "researcher")):
        write_invitation(folder.invitations / name, operator.invite(name, role, INVITATION_S))
    with ThreadPoolExecutor(len(OWNERS) + 1) as pool:
        enrolments = [
            pool.submit(enrol_owner, load_invitation(folder.invitations / owner), folder.home(owner))
            for owner in OWNERS
        ]
        enrolments.append(pool.submit(enrol, load_invitation(folder.invitations / RESEARCHER), folder.researcher, None))
        for enrolment in enrolments:
            enrolment.result()


def found_federation(folder: DemoFolder, researcher: CoordinatorLink) -> None:
    """Sign the list of members with a key that only the researcher's folder holds; every owner pins and accepts it."""
    federation_key = create_federation(folder.federation, "hospitals")
    add_members(folder.federation, [Home(folder.home(owner)).card for owner in OWNERS])
    sign_members(folder.federation, days=30)
    signed = folder.federation / SIGNED_FILE
    for owner in OWNERS:
        write_policy(folder, owner, federation_key)
        accept(Home(folder.home(owner)), signed)
    researcher.publish_membership(signed.read_bytes())


def write_policy(folder: DemoFolder, owner: str, federation_key: str) -> None:
    """The owner's policy, beside its keys."""
    mapping = Path("..", "..", "data", owner, "mapping.yaml")
    expires = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=30)
    text = POLICY.format(
        owner=owner,
        federation_key=federation_key,
        mapping=mapping.as_posix(),
        rows=DECLARED_ROWS[owner],
        epsilon=BUDGET_EPSILON,
        delta=BUDGET_DELTA,
        expires=expires.isoformat(),
    )
    (folder.home(owner) / "policy.toml").write_text(text, encoding="utf-8")


def sign_mappings(processes: Processes, ontology: Path, owners: Mapping[str, tuple[Path, Path]]) -> None:
    """Have the steward of every owner approve its mapping for the data as they lie, signed with the client's identity.

    `owners`: name -> mapping and the client's folder.

    Raises:
        FaultError: a mapping that does not fit its data or the ontology; its log tells why.
    """
    words: list[str] = []
    for owner, (mapping, home) in owners.items():
        approve = ("mapping", "approve", str(mapping), "--ontology", str(ontology), "--client", str(home))
        words += [*approve, "--approver", f"data steward of {owner}", THEN]
    processes.lepton("stewards", *words[:-1])
    processes.finish("stewards", 120.0)


def write_quality(folder: DemoFolder, processes: Processes) -> None:
    """Write every owner's report on the quality of its data, for the owner's own eyes; returns at once."""
    words: list[str] = []
    for owner in OWNERS:
        folder.quality(owner).unlink(missing_ok=True)
        look = ("mapping", "quality", str(folder.mapping(owner)), "--ontology", str(folder.ontology))
        words += [*look, "--file", str(folder.quality(owner)), THEN]
    processes.lepton("quality", *words[:-1])


def start_owner(folder: DemoFolder, processes: Processes, owner: str) -> None:
    """Start the owner's daemon, as at boot; returns at once."""
    processes.lepton(owner, "client", "run", str(folder.home(owner)))


def start_owners(folder: DemoFolder, processes: Processes, owners: Sequence[str] = OWNERS) -> None:
    """Start the daemons."""
    for owner in owners:
        start_owner(folder, processes, owner)
