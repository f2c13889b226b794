"""Mode `client-distributed` as it runs: a hundred daemons, each enrolled and heard through a recording proxy.

They share one process, each with its own ledger, session over mutual TLS, and training process; so it takes 16 GiB of
memory and some ten minutes, and runs at night. What a hundred members' messages are held to by day is in
`tests/simulation/test_hidden_members.py`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from lepton_admin.demo import stage
from lepton_admin.demo.folder import DemoFolder
from lepton_admin.demo.processes import Processes
from lepton_admin.federations import SIGNED_FILE, add_members, create_federation, sign_members
from lepton_admin.link import CoordinatorLink
from lepton_admin.submission import resolve_job, submit_job
from lepton_client.enrol import enrol, enrol_owner
from lepton_client.home import Home, load_identity
from lepton_client.ledger import read_ledger
from lepton_client.membership import accept
from lepton_client.train.learner import build_learner, train_round
from lepton_client.train.rows import Rows
from lepton_compression.update import kept_indices
from lepton_core.chain import parse_link
from lepton_core.job import Job, JobFile
from lepton_core.privacy.ledger import LedgerEntry
from lepton_core.settings import parse_settings
from lepton_core.views import Invitation, JobView
from lepton_kg.compiler import compile_plan
from lepton_kg.mapping import parse_mapping
from lepton_kg.source import read_columns
from lepton_pool.models import architecture_of, model_layout
from lepton_pool.terms import derive_noise_plan
from lepton_pool.weights import decode_weights
from lepton_protos.channel import load_endpoint
from lepton_protos.v1 import control_pb2
from tests.e2e.allowed_fields import Told, violations
from tests.e2e.hospitals import bootstrap_of
from tests.e2e.leak_search import Secrets, secrets_of, windows_of
from tests.e2e.published_noise import deviation_of_noise, noise_in
from tests.e2e.recording_proxy import RecordingProxy
from tests.e2e.uniformity import FAR, deviation
from tests.unit.client.clinics import ONTOLOGY, TURTLE, VOCABULARY, write_clinic, write_policy

MEMBERS, ROUNDS, ROWS = 100, 2, 60
#: A hundred training processes import torch meanwhile.
STEP_DEADLINE_S = 900.0
OWNERS = tuple(f"clinic-{number:02}" for number in range(MEMBERS))
#: Those whose bytes are read one by one.
READ = OWNERS[::20]

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(2400), pytest.mark.xdist_group("hidden members")]


@dataclass(frozen=True)
class Ended:
    """The job at its end."""

    folder: DemoFolder
    job: Job
    view: JobView
    proxies: dict[str, RecordingProxy]
    invitations: dict[str, Invitation]
    researcher: CoordinatorLink

    def left(self, owner: str) -> bytes:
        """Everything that a member sent."""
        parts = [f"{call.method} {call.headers}".encode() for call in self.proxies[owner].calls]
        return b"\0".join([*parts, *(message for call in self.proxies[owner].calls for message in call.sent)])

    def payloads(self, owner: str) -> list[bytes]:
        """Its masked words, by round."""
        batches = [
            control_pb2.ReportBatch.FromString(raw)
            for call in self.proxies[owner].calls
            if call.method.endswith("/Session")
            for raw in call.sent
        ]
        reports = [report.round_report for batch in batches for report in batch.reports]
        found = {report.round: report.payload for report in reports if report.payload}
        return [found[number] for number in sorted(found)]

    def told(self, owner: str) -> Told:
        """What it was told before its first session."""
        identities = {each: load_identity(Home(self.folder.home(each))) for each in OWNERS}
        members = frozenset(identity.member for identity in identities.values())
        assert len(members) == MEMBERS
        mine = identities[owner]
        return Told(owner, self.invitations[owner].token, mine.public, mine.member, members)


def job_file() -> JobFile:
    return parse_settings(
        JobFile,
        {
            "name": "clinics",
            "population": "patients",
            "task": {
                "ontology": ONTOLOGY.digest,
                "vocabulary": VOCABULARY,
                "features": [{"concept": "glucose"}, {"concept": "temperature"}],
                "target": {"concept": "outcome", "positive": "ill"},
            },
            "model": {"kind": "mlp", "hidden": [16]},
            # All rows in one step, so that a member's update can be worked out again.
            "training": {"rounds": ROUNDS, "local_steps": 1, "sampling_rate": 1.0, "learning_rate": 1.0},
            "privacy": {"mode": "client-distributed", "unit": "member", "epsilon": 8.0, "delta": 1e-3},
            "aggregation": {"min_cohort": MEMBERS, "max_cohort": MEMBERS, "step_deadline_s": STEP_DEADLINE_S},
        },
        source="test",
    )


@contextlib.contextmanager
def hundred_daemons(folder: DemoFolder, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    homes = [str(folder.home(owner)) for owner in OWNERS]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.daemons", str(os.getpid()), *homes],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(300.0) == 0, log.read_text("utf-8")[-2000:]


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    folder = DemoFolder(tmp_path_factory.mktemp("clinics"))
    with contextlib.ExitStack() as stack:
        # 1. A coordinator, an operator and a researcher.
        processes = stack.enter_context(Processes(folder.logs))
        stage.start_coordinator(folder, processes)
        processes.wait_until((folder.coordinator / "address").is_file, "the coordinator", "coordinator")
        operator = stack.enter_context(CoordinatorLink.of_profile(folder.operator))
        enrol(operator.invite("rosa", "researcher", 600.0), folder.researcher, None)
        researcher = stack.enter_context(CoordinatorLink.of_profile(folder.researcher))
        researcher.publish_ontology(TURTLE, "turtle", "clinics")
        # 2. A hundred owners, each with data of its own and enrolled through a proxy of its own.
        proxies, invitations = {}, {}
        for number, owner in enumerate(OWNERS):
            write_clinic(folder.home(owner), seed=number)
            invitations[owner] = invitation = operator.invite(owner, "owner", 600.0)
            proxy = proxies[owner] = RecordingProxy(folder.coordinator)
            stack.callback(proxy.close)
            proxy.dial(bootstrap_of(invitation))
            enrol_owner(replace(invitation, address=proxy.address), folder.home(owner))
            proxy.dial(replace(load_endpoint(folder.home(owner) / "tls"), address=operator.address))
        key = create_federation(folder.federation, "clinics")
        add_members(folder.federation, [Home(folder.home(owner)).card for owner in OWNERS])
        sign_members(folder.federation, days=1)
        researcher.publish_membership((folder.federation / SIGNED_FILE).read_bytes())
        for owner in OWNERS:
            write_policy(folder.home(owner), key, models=("mlp",), modes=["client-distributed"], epsilon=1000.0)
            accept(Home(folder.home(owner)), folder.federation / SIGNED_FILE)
        # 3. Their daemons, and the job.
        log = folder.root / "daemons.log"
        stack.enter_context(hundred_daemons(folder, log))
        processes.wait_until(
            lambda: operator.health().connected_members == MEMBERS, "connecting", "coordinator", timeout_s=600.0
        )
        resolved = resolve_job(job_file(), folder.root, researcher)
        job = submit_job(resolved, researcher)
        for _ in researcher.watch(job, timeout_s=1500.0):
            pass
        yield Ended(folder, resolved.job, researcher.job(job), proxies, invitations, researcher)


@pytest.fixture(scope="module")
def updates(ended):
    """Owner -> what it learnt in each round, worked out again from its records, (model_length,), float32."""
    layout, learner = model_layout(architecture_of(ended.job)), build_learner(ended.job)
    found = defaultdict(list)
    for owner in OWNERS:
        mapping_file = ended.folder.home(owner) / "mapping.yaml"
        mapping = parse_mapping(mapping_file.read_text("utf-8"), source=owner)
        plan = compile_plan(ended.job.task, mapping, ONTOLOGY)
        prepared = plan.execute(read_columns(mapping.source, plan.columns, mapping_file.parent))
        for model in ended.view.models[:-1]:
            weights = decode_weights(layout, ended.researcher.download(model.digest))
            rows = Rows(prepared.features, prepared.target)
            found[owner].append(train_round(learner, weights, None, rows, expected_batch=float(ROWS)))
    return found


def test_every_member_is_in_every_sum_and_charged_as_a_member(ended):
    assert ended.view.state.value == "finished", ended.view.reason
    assert [len(entry.survivors) for entry in ended.view.rounds] == [MEMBERS] * ROUNDS
    for owner in OWNERS:
        home = Home(ended.folder.home(owner))
        entries = read_ledger(home.ledger, load_identity(home).public)
        charged = [entry.charge for entry in entries if isinstance(entry, LedgerEntry)]
        assert {charge.unit for charge in charged} == {"member"}


def test_what_is_published_is_the_clipped_updates_with_noise_of_the_promised_variance(ended, updates):
    told, clip = ended.told(OWNERS[0]), ended.job.privacy.clip_norm
    assert violations(ended.proxies[OWNERS[0]].calls, told) == []
    terms = told.setups[ended.view.job, 1].terms
    deviations = []
    for place, model in enumerate(ended.view.models[1:]):
        link = parse_link(ended.researcher.download(model.link), ended.view.job, terms)
        kept = kept_indices(derive_noise_plan(ended.job).ring, link.codec_seed)
        assert len(kept) == len(updates[OWNERS[0]][place])
        learnt = [updates[owner][place].astype(np.float64) for owner in OWNERS]
        signal = sum(update * min(1.0, clip / float(np.linalg.norm(update))) for update in learnt)
        deviations.append(noise_in(ended.job, link, MEMBERS, signal) / deviation_of_noise(ended.job, MEMBERS))
    together = np.concatenate(deviations)
    assert abs(together.mean()) < 6 / len(together) ** 0.5
    assert (together**2).mean() == pytest.approx(1.0, abs=6 * (2 / len(together)) ** 0.5)
    for one, other in itertools.combinations(deviations, 2):
        assert abs((one * other).mean()) < 6 / len(one) ** 0.5


def test_every_value_that_left_is_what_the_table_allows(ended):
    for owner in READ:
        assert violations(ended.proxies[owner].calls, ended.told(owner)) == []


def test_nothing_of_records_ledger_mapping_or_update_is_in_the_bytes(ended, updates):
    for owner in READ:
        home = Home(ended.folder.home(owner))
        hidden = secrets_of(home, home.folder / "mapping.yaml", ended.job.task, ONTOLOGY)
        left = ended.left(owner)
        assert hidden.found_in(left) == []
        windows = {window for update in updates[owner] for window in windows_of(update.astype(np.float64))}
        learnt = Secrets({}, frozenset(windows), frozenset())
        assert learnt.found_in(left) == []
        assert learnt.found_in(left[:101] + updates[owner][0][3:5].tobytes() + left[101:])


def test_masked_words_are_uniform_and_no_mask_is_used_twice(ended):
    payloads = {owner: ended.payloads(owner) for owner in OWNERS}
    assert {len(each) for each in payloads.values()} == {ROUNDS}
    assert len({len(words) for each in payloads.values() for words in each}) == 1
    assert deviation(b"".join(words for each in payloads.values() for words in each)) < FAR
    first, second = (np.frombuffer(b"".join(each[place] for each in payloads.values()), "<u8") for place in range(2))
    assert deviation((second - first).tobytes()) < FAR
