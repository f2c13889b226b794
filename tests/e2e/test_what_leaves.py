"""What leaves a site in a whole private job of real processes: the claims of `docs/what-leaves.md`.

Each of five daemons, enrolment included, talks to the coordinator through a proxy that takes the TLS off with the
test's keys and keeps every byte. The record holds what the other tests of this federation made the daemons say, too.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter, defaultdict

import numpy as np
import pytest
from google.protobuf.descriptor import FieldDescriptor

from lepton_client import enrol_link, transfer_link
from lepton_client.home import load_identity
from lepton_client.ledger import derive_run, read_ledger
from lepton_client.spending import spending
from lepton_core.chain import parse_link
from lepton_core.identity import require_signature
from lepton_core.ports import SystemRandomness
from lepton_core.privacy.ledger import LedgerEntry
from lepton_core.secagg.messages import ConsistencySignature
from lepton_core.secagg.payload import encode_payload
from lepton_core.secagg.sharing import share_digest
from lepton_core.secagg.terms import derive_sid, survivors_digest
from lepton_core.session import RoundReport
from lepton_kg.ontology import load_canonical
from lepton_pool.models import architecture_of, model_layout
from lepton_pool.steps import encode_update
from lepton_pool.weights import decode_weights
from lepton_protos import convert
from lepton_protos.v1 import control_pb2, transfer_pb2
from tests.e2e.allowed_fields import KIND_OF, KINDS, REQUESTS, Told, kinds_of_message, parse, values, violations
from tests.e2e.clipped_sums import sum_again
from tests.e2e.hospitals import LEARNING, OPENED, OWNERS, REFUSING, ROUNDS, STEP_DEADLINE_S
from tests.e2e.leak_search import secrets_of, secrets_of_a_refusing_owner
from tests.e2e.published_noise import deviation_of_noise, noise_in
from tests.e2e.uniformity import FAR, deviation

#: Kinds of field whose bytes are random, and nearly all of what is sent.
RANDOM = {"masked words", "ciphertext", "signature", "random or derived from it, 32 bytes"}

pytestmark = [pytest.mark.timeout(240), pytest.mark.xdist_group("hospitals")]

#: Of an enrolment, of a call without bulk, and of a transfer in a round.
DEADLINES_S = (enrol_link.DEADLINE_S, transfer_link.CALL_DEADLINE_S, STEP_DEADLINE_S)


@pytest.fixture(scope="module")
def record(hospitals, learnt, learnt_small, learnt_summed, learnt_of_people):
    """Owner -> its calls so far, each as it was when all jobs had ended."""
    for ended in (learnt, learnt_small, learnt_summed, learnt_of_people):
        assert ended.view.state.value == "finished", ended.view.reason
        assert [entry.state for entry in ended.view.rounds] == ["completed"] * ROUNDS
    return {owner: list(proxy.calls) for owner, proxy in hospitals.proxies.items()}


@pytest.fixture(scope="module")
def told(hospitals, record):
    """Owner -> what it was told in its sessions."""
    identities = {owner: load_identity(hospitals.home(owner)) for owner in OWNERS}
    members = frozenset(identity.member for identity in identities.values())
    return {
        owner: Told(owner, hospitals.invitations[owner].token, identity.public, identity.member, members, OPENED)
        for owner, identity in identities.items()
    }


@pytest.fixture(scope="module")
def found(record, told):
    """Owner -> what left it and is not on the table; afterwards `told` is complete."""
    return {owner: violations(record[owner], told[owner]) for owner in OWNERS}


@pytest.fixture(scope="module", params=["wide", "small", "summed"])
def job(request, learnt, learnt_small, learnt_summed):
    """The id of each of the jobs: masked words that were uploaded, that came within messages, and of noised sums."""
    return {"wide": learnt, "small": learnt_small, "summed": learnt_summed}[request.param].view.job


@pytest.fixture(scope="module")
def payloads(record, job):
    """Owner -> the masked words that left it, by round."""
    uploads = defaultdict(dict)
    for owner in LEARNING:
        for call in calls_of(record[owner], "Put"):
            header = transfer_pb2.UploadChunk.FromString(call.sent[0]).header
            if header.job == job:
                data = b"".join(transfer_pb2.UploadChunk.FromString(chunk).data for chunk in call.sent)
                assert uploads[owner].setdefault(header.round, data) == data
        for report in reports(record[owner], job).values():
            if report.payload:
                assert uploads[owner].setdefault(report.round, report.payload) == report.payload
    return uploads


def calls_of(calls, name):
    return [call for call in calls if call.method.endswith(f"/{name}")]


def reports(calls, job):
    """Round and message of every distinct report of the job's rounds, with its bytes."""
    seen = {}
    for envelope in envelopes(calls):
        if envelope.round_report.job == job:
            seen[envelope.round_report.SerializeToString()] = convert.report_from_proto(envelope)
    return seen


def envelopes(calls):
    """Every report of the sessions, in its envelope."""
    sent = [raw for call in calls_of(calls, "Session") for raw in call.sent]
    return [envelope for raw in sent for envelope in control_pb2.ReportBatch.FromString(raw).reports]


def words(payload):
    return np.frombuffer(payload, "<u8")


def test_daemons_call_a_few_rpcs_of_the_coordinator_and_nobody_else(hospitals, record, learnt):
    for owner in OWNERS:
        assert {call.method for call in record[owner]} <= set(REQUESTS)
        assert learnt.connections[owner] == {hospitals.proxies[owner].address}
    # Nobody was away, so nobody asked for what it had missed.
    unused = {"/lepton.v1.Control/Links"}
    assert {call.method for owner in LEARNING for call in record[owner]} == set(REQUESTS) - unused


def test_headers_tell_the_grpc_library_and_fixed_deadlines_and_nothing_else(record):
    for owner in OWNERS:
        for call in record[owner]:
            ((name, value),) = call.headers
            assert name == "user-agent"
            assert re.fullmatch(r"grpc-python(-asyncio)?/[\d.]+ grpc-c/[\d.]+ \(linux; chttp2\)", value)
            # What is left of it when the call is taken up: a few seconds less on a busy machine.
            assert call.timeout_s is None or any(-1 < fixed - call.timeout_s < 5 for fixed in DEADLINES_S)


def test_every_message_is_the_one_encoding_of_known_fields(record):
    for owner in OWNERS:
        for call in record[owner]:
            for raw in call.sent:
                message = parse(call, raw)
                message.DiscardUnknownFields()
                assert message.SerializeToString() == raw


def test_every_value_that_left_is_what_the_table_allows(found):
    assert found == {owner: [] for owner in OWNERS}


def test_a_value_that_the_table_does_not_allow_is_found(record, told, found):
    call = calls_of(record["aurora"], "Session")[0]
    for altered in (
        {"acknowledged": 100_000},
        {"hello": control_pb2.Hello(software_version="97 rows")},
        {"match_answer": control_pb2.MatchAnswer(job="radius-mean")},
        {"round_refusal": control_pb2.RoundRefusal(round=97)},
        # What training took, in milliseconds, where a round's number stands.
        {"round_report": control_pb2.RoundReport(round=1_234)},
        {"match_answer": control_pb2.MatchAnswer(refusal=control_pb2.Refusal(reason="RADIUS_MEAN_IS_17"))},
        {"round_report": control_pb2.RoundReport(payload=b"17.99, 10.38, 122.8")},
    ):
        batch = altered if "acknowledged" in altered else {"reports": [control_pb2.MemberReport(**altered)]}
        altered = control_pb2.ReportBatch(**batch)  # noqa: PLW2901 - as a message
        forged = type(call)(call.method, (), None, [*call.messages, (True, altered.SerializeToString())])
        assert len(violations([forged], told["aurora"])) == 1


def test_the_table_of_the_page_is_the_one_that_is_checked(repository):
    page = (repository / "docs/what-leaves.md").read_text("utf-8")
    section = page.partition("## What the recorded job is held to")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|`]+) \| (`[^|]*) \|", section, re.MULTILINE)
    assert {name.strip(): set(re.findall(r"`([\w.]+)`", fields)) for name, fields in rows} == {
        kind.name: set(kind.fields) for kind in KINDS
    }
    assert set(re.findall(r"`/([\w.]+/\w+)`", section)) == {method.removeprefix("/") for method in REQUESTS}


def test_no_message_of_a_daemon_has_a_field_for_a_real_number():
    real = {FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE}
    waiting, seen = [kind.DESCRIPTOR for kind in REQUESTS.values()], set()
    while waiting:
        kind = waiting.pop()
        if kind.name not in seen:
            seen.add(kind.name)
            assert [entry.name for entry in kind.fields if entry.type in real] == []
            waiting += [entry.message_type for entry in kind.fields if entry.message_type is not None]
    assert len(seen) > 15


def test_every_input_is_exactly_as_long_as_the_terms_say(payloads, told, found, job):
    (length,) = {told[owner].setups[job, 1].terms.payload_bytes for owner in LEARNING}
    for owner in LEARNING:
        assert {number: len(data) for number, data in payloads[owner].items()} == dict.fromkeys(
            range(1, ROUNDS + 1), length
        )


def test_the_digests_that_left_are_those_of_the_masked_words(record, payloads, job, learnt):
    for owner in LEARNING:
        digests = {number: hashlib.sha256(data).digest() for number, data in payloads[owner].items()}
        trailers = {
            report.round: report.message.payload_digest
            for report in reports(record[owner], job).values()
            if type(report.message).__name__ == "InputTrailer"
        }
        headers = {
            parse(call, call.sent[0]).header.round: bytes.fromhex(parse(call, call.sent[0]).header.digest)
            for name in ("Status", "Put")
            for call in calls_of(record[owner], name)
            if parse(call, call.sent[0]).header.job == job
        }
        assert digests == trailers
        assert headers == (digests if job == learnt.view.job else {})


def test_masked_words_and_ciphertexts_are_uniform_and_no_mask_is_used_twice(record, payloads, job):
    everything = b"".join(data for owner in LEARNING for data in payloads[owner].values())
    assert len(everything) > 16_000
    assert deviation(everything) < FAR
    for place in range(8):
        assert deviation(everything[place::8]) < FAR
    for owner in LEARNING:
        differences = [words(payloads[owner][n + 1]) - words(payloads[owner][n]) for n in range(1, ROUNDS)]
        assert deviation(b"".join(change.tobytes() for change in differences)) < FAR
    across = [words(payloads[a][n]) - words(payloads["aurora"][n]) for a in LEARNING[1:] for n in range(1, ROUNDS + 1)]
    assert deviation(b"".join(change.tobytes() for change in across)) < FAR
    sealed = b"".join(
        entry.ciphertext
        for owner in LEARNING
        for report in reports(record[owner], job).values()
        if type(report.message).__name__ == "ShareMessage"
        for entry in report.message.sealed
    )
    assert len(sealed) > 5_000
    assert deviation(sealed) < FAR


def test_words_without_masks_and_masks_used_twice_would_be_found(told, found, payloads, job):
    asked = told["aurora"].jobs[job]
    length = model_layout(architecture_of(asked)).length
    updates = [np.random.default_rng(seed).normal(0, 0.01, length).astype(np.float32) for seed in range(8)]
    public = {"member": told["aurora"].member, "codec_seed": bytes(32), "randomness": SystemRandomness()}
    bare = [encode_update(asked, update, 97, **public) for update in updates]
    assert deviation(b"".join(encode_payload(each) for each in bare)) > 10 * FAR
    masked = words(payloads["aurora"][1])
    twice = [(masked + bare[n + 1]) - (masked + bare[n]) for n in range(7)]
    assert deviation(b"".join(change.tobytes() for change in twice)) > 10 * FAR


def test_a_message_is_as_long_in_every_round_and_at_owners_of_different_size(record, job, learnt):
    lengths = {}
    for owner in LEARNING:
        sizes, numbers = defaultdict(set), Counter()
        for raw, report in reports(record[owner], job).items():
            kind = type(report.message).__name__
            sizes[kind].add(len(raw))
            numbers[kind] += 1
        for name in ("Status", "Put", "Download", "Get") if job == learnt.view.job else ():
            sizes[name] = {len(message) for call in calls_of(record[owner], name) for message in call.sent}
        assert numbers == dict.fromkeys(
            ("Advert", "ShareMessage", "InputTrailer", "ConsistencySignature", "Unmasking"), ROUNDS
        )
        lengths[owner] = dict(sizes)
    # One length each, over four rounds of a hundred, ninety, eighty and fifty-eight patients.
    assert {kind: len(each) for kind, each in lengths["aurora"].items()} == dict.fromkeys(lengths["aurora"], 1)
    assert all(lengths[owner] == lengths["aurora"] for owner in LEARNING)


def test_every_signature_is_the_members_over_what_was_told_to_all(record, told, found, job):
    for owner in LEARNING:
        site = told[owner]
        for report in reports(record[owner], job).values():
            assert isinstance(report, RoundReport)
            place, message = (job, report.round), report.message
            setup_id, root = site.setups[place].setup_id(), site.rosters[place].root()
            sid = derive_sid(setup_id, root, site.deliveries[place].model_digest)
            match type(message).__name__:
                case "Advert":
                    signed = message.signed_bytes(setup_id)
                case "ShareMessage":
                    signed = message.signed_bytes(setup_id, root)
                case "ConsistencySignature":
                    assert isinstance(message, ConsistencySignature)
                    signed = survivors_digest(sid, site.survivors[place].survivors)
                case _:
                    signed = message.signed_bytes(sid)
            require_signature(site.identity, message.signature, signed, who=owner, what=type(message).__name__)


def test_every_share_revealed_is_the_one_whose_hash_its_dealer_signed(record, told, found, job):
    for owner in LEARNING:
        messages = {(type(r.message).__name__, r.round): r.message for r in reports(record[owner], job).values()}
        for number in range(1, ROUNDS + 1):
            own = messages["ShareMessage", number]
            dealt = {entry.dealer: entry.digests for entry in told[owner].deliveries[job, number].dealt}
            dealt[own.dealer] = own.digests
            revealed = messages["Unmasking", number].revealed
            # Nobody was lost: of every member exactly the share of its self-mask seed.
            assert {(share.dealer, share.kind.name) for share in revealed} == {(who, "SELF_SEED") for who in dealt}
            for share in revealed:
                (promised,) = [entry for entry in dealt[share.dealer] if entry.holder == told[owner].member]
                assert share_digest(share.salt, share.share) == promised.self_seed


def test_what_must_be_random_never_comes_twice(record, learnt, learnt_small, learnt_summed):
    fresh = {"mask_public", "encryption_public", "seed_commitment", "nonce", "signature", "ciphertext", "salt"}
    for owner in LEARNING:
        seen = Counter(
            value
            for ended in (learnt, learnt_small, learnt_summed)
            for raw in reports(record[owner], ended.view.job)
            for name, value in values(control_pb2.RoundReport.FromString(raw))
            if name.partition(".")[2] in fresh
        )
        assert seen
        assert set(seen.values()) == {1}


def bytes_that_left(calls):
    """Everything that an owner sent, headers and names of RPCs included, as one byte string."""
    parts = [f"{call.method} {call.headers}".encode() for call in calls]
    return b"\0".join([*parts, *(message for call in calls for message in call.sent)])


def bytes_that_left_and_are_not_random(calls):
    """As `bytes_that_left`, of each message only the values of fields that need not be random."""
    parts = [f"{call.method} {call.headers}".encode() for call in calls]
    for call in calls:
        sent = [item for raw in call.sent for item in values(parse(call, raw))]
        legible = [value for name, value in sent if KIND_OF[name].name not in RANDOM]
        parts += [value if isinstance(value, bytes) else str(value).encode() for value in legible]
    return b"\0".join(parts)


@pytest.fixture(scope="module")
def secrets(hospitals, learnt, told, found):
    """Learning owner -> what it keeps."""
    job = told["aurora"].jobs[learnt.view.job]
    ontology = load_canonical(hospitals.researcher.ontology(job.task.ontology), job.task.ontology)
    data = hospitals.folder.data
    return {
        owner: secrets_of(hospitals.home(owner), data / owner / "mapping.yaml", job.task, ontology)
        for owner in LEARNING
    }


@pytest.mark.parametrize("owner", LEARNING)
def test_nothing_of_records_mapping_policy_plan_or_ledger_is_in_the_bytes(record, secrets, owner):
    assert len(secrets[owner].windows) > 10_000
    # The codes of two hospitals, such as M and B, are too short to look for.
    assert {what for what, needles in secrets[owner].texts.items() if not needles} <= {"code"}
    assert secrets[owner].found_in(bytes_that_left(record[owner])) == []
    assert secrets[owner].found_in(bytes_that_left_and_are_not_random(record[owner]), random=False) == []


def test_the_search_finds_the_shortest_texts_in_all_that_is_not_random(record, secrets):
    session = calls_of(record["aurora"], "Session")[0]
    for report, found in (
        (control_pb2.RoundReport(job="17.99"), ["raw value as text"]),
        (control_pb2.RoundReport(input_trailer=control_pb2.InputTrailer(member=b"-17.99-")), ["raw value as text"]),
        (control_pb2.RoundReport(payload=b"-17.99-"), []),
    ):
        batch = control_pb2.ReportBatch(reports=[control_pb2.MemberReport(round_report=report)])
        forged = type(session)(session.method, (), None, [(True, batch.SerializeToString())])
        assert secrets["aurora"].found_in(bytes_that_left_and_are_not_random([forged]), random=False) == found


@pytest.mark.parametrize(
    "leak",
    [
        b"radius_mean",
        "radius_mean".encode("utf-16-le"),
        b"data steward of aurora",
        b"declared_rows = 100",
        np.float64(17.99).tobytes(),
        np.float64(17.99).astype(">f8").tobytes(),
        np.array([17.99, 10.38], "<f4").tobytes(),
        np.array([17990, 10380], ">i4").tobytes(),
    ],
    ids=["column", "column in UTF-16", "approver", "policy", "float64", "big-endian", "float32", "int32"],
)
def test_the_search_finds_what_is_planted(record, secrets, leak):
    left = bytes_that_left(record["aurora"])
    middle = len(left) // 2 + 1
    assert secrets["aurora"].found_in(left[:middle] + leak + left[middle:])


def test_the_search_finds_hashes_rows_scaled_values_and_labels(hospitals, record, secrets):
    left = bytes_that_left(record["aurora"])
    source = (hospitals.folder.data / "aurora" / "data.csv").read_bytes()
    home = hospitals.home("aurora")
    ledger_line = home.ledger.read_bytes().splitlines()[OPENED + 1]
    plan = re.search(rb'"plan":"([0-9a-f]{64})"', ledger_line)[1]
    planted = {
        "plan": plan,
        "raw plan": bytes.fromhex(plan.decode()),
        "ledger": re.search(rb'"previous":"([0-9a-f]{64})"', ledger_line)[1],
        "source": hashlib.sha256(source).hexdigest().encode(),
        "row": source.splitlines()[5],
        "path": str(home.folder).encode(),
        "labels": next(iter(secrets["aurora"].labels)),
        "number": next(iter(secrets["aurora"].windows)),
    }
    missed = [what for what, leak in planted.items() if not secrets["aurora"].found_in(left + leak)]
    assert missed == []


@pytest.fixture(scope="module", params=["records", "people"])
def summed(request, hospitals, learnt_summed, learnt_of_people, told, found):
    """The third and fourth job, each round's model and link, and what each learning owner summed in them."""
    of_people = request.param == "people"
    view = (learnt_of_people if of_people else learnt_summed).view
    job = told["aurora"].jobs[view.job]
    layout, download = model_layout(architecture_of(job)), hospitals.researcher.download
    terms = told["aurora"].setups[view.job, 1].terms
    rounds = [
        (decode_weights(layout, download(before.digest)), parse_link(download(after.link), view.job, terms))
        for before, after in itertools.pairwise(view.models)
    ]
    ontology = load_canonical(hospitals.researcher.ontology(job.task.ontology), job.task.ontology)
    data = hospitals.folder.data
    folders = {owner: data / (f"{owner}-people" if of_people else owner) for owner in LEARNING}
    parts = {owner: sum_again(job, ontology, folders[owner] / "mapping.yaml", rounds) for owner in LEARNING}
    return job, [link for _, link in rounds], parts


def test_what_is_published_is_the_clipped_sums_with_fresh_noise_of_the_promised_variance(summed):
    job, links, parts = summed
    assert len(links) == ROUNDS
    noise = [
        noise_in(job, link, len(LEARNING), sum(parts[owner].sums[place] for owner in LEARNING))
        for place, link in enumerate(links)
    ]
    deviations = [each / deviation_of_noise(job, len(LEARNING)) for each in noise]
    together = np.concatenate(deviations)
    # 2,000 values: chance is beyond these once in 10^9 times.
    assert len(together) > 2_000
    assert abs(together.mean()) < 6 / len(together) ** 0.5
    assert (together**2).mean() == pytest.approx(1.0, abs=0.2)
    # And as those who see the sums are promised: no less than the noise multiplier times what a record moves.
    assert deviation_of_noise(job, len(LEARNING)) > job.privacy.noise_multiplier * job.privacy.clip_norm
    for one, other in itertools.combinations(deviations, 2):
        assert abs((one * other).mean()) < 6 / len(one) ** 0.5


def test_people_are_charged_as_such_and_their_ids_stay_where_they_are(hospitals, record, learnt_of_people, told):
    run = derive_run(learnt_of_people.view.job, told["aurora"].jobs[learnt_of_people.view.job])
    for owner in LEARNING:
        home = hospitals.home(owner)
        entries = read_ledger(home.ledger, load_identity(home).public)
        charged = [entry.charge for entry in entries if isinstance(entry, LedgerEntry)]
        assert {charge.unit for charge in charged if charge.job == run} == {"subject"}
        assert b"-person-" not in bytes_that_left(record[owner])
        (subjects,) = [one for one in spending(home.folder)["populations"] if one["unit"] == "subject"]
        assert (subjects["rounds_charged"], subjects["epsilon_spent"] <= 2.0) == (ROUNDS, True)


@pytest.mark.parametrize("owner", LEARNING)
def test_no_clipped_sum_and_no_number_of_rows_is_in_the_bytes(record, summed, owner):
    job, _, parts = summed
    hidden = parts[owner].secrets(job)
    assert len(hidden.windows) > 2_000
    assert hidden.found_in(bytes_that_left(record[owner])) == []


def test_a_clipped_sum_or_a_number_of_rows_that_left_would_be_found(record, summed):
    job, _, parts = summed
    hidden, left = parts["aurora"].secrets(job), bytes_that_left(record["aurora"])
    total = parts["aurora"].sums[1]
    kept = total[total != 0.0]
    step = (-job.training.learning_rate / job.training.expected_rows * kept).astype(np.float32)
    middle = len(left) // 2 + 1
    for leak in (kept[5].tobytes(), kept.astype(">f8")[9].tobytes(), step[4:6].tobytes(), np.int64(97).tobytes()):
        assert hidden.found_in(left[:middle] + leak + left[middle:])


def test_the_hospital_that_refuses_sends_its_enrolment_and_a_refusal_in_fixed_words(hospitals, record, learnt):
    calls = record[REFUSING]
    apart = {
        " ".join(kinds_of_message(parse(call, raw)))
        for call in calls
        for raw in call.sent
        if "Control" not in call.method
    }
    said = {" ".join(kinds_of_message(envelope)) for envelope in envelopes(calls)} - {"MemberReport Heartbeat"}
    assert apart == {"EnrolRequest", "GetOntologyRequest"}
    assert said == {"MemberReport Hello", "MemberReport MatchAnswer Refusal"}
    answers = map(convert.report_from_proto, envelopes(calls))
    refusals = {
        (answer.refusal.code, answer.refusal.reason, answer.refusal.subject)
        for answer in answers
        if getattr(answer, "job", None) == learnt.view.job
    }
    assert refusals == {
        ("refused.match", "MISSING_CONCEPT", "https://example.org/hospitals/worst-concave-points"),
    }
    kept = secrets_of_a_refusing_owner(hospitals.home(REFUSING), hospitals.folder.data / REFUSING / "mapping.yaml")
    assert kept.found_in(bytes_that_left(record[REFUSING])) == []
