"""The translator gives back what it was given, and refuses what is malformed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lepton_core.errors import InputError
from lepton_core.ids import JobId, MemberId, ModelVersion, RoundNumber
from lepton_core.secagg import messages as m
from lepton_core.secagg.terms import LaneGroup, Setup, Terms
from lepton_core.session import (
    Heartbeat,
    MatchAnswer,
    Refusal,
    RoundCommand,
    RoundInvite,
    RoundReport,
    coverage_of,
)
from lepton_protos import convert
from lepton_protos.v1 import control_pb2

MEMBER = MemberId(bytes(range(16)))
TERMS = Terms(
    job_digest=b"j" * 32,
    ontology_digest=b"o" * 32,
    membership_digest=b"m" * 32,
    compiler_version="1",
    codec_version="1",
    layout_digest=b"l" * 32,
    model_length=10,
    lane_groups=(LaneGroup(16, 16),),
    min_cohort=4,
    max_cohort=64,
    corruption=0.1,
    dropout=0.1,
    security_bits=80,
    step_deadline_s=30.0,
)
ADVERT = m.Advert(MEMBER, b"i" * 32, b"a" * 32, b"b" * 32, b"c" * 32, b"n" * 32, b"s" * 64)
DELIVERY = m.Delivery(
    dealt=(m.DealtShares(MEMBER, b"sealed", (m.ShareDigests(MEMBER, b"1" * 32, b"2" * 32),), b"s" * 64),),
    model_version=ModelVersion(3),
    model_digest=b"d" * 32,
)
UNMASKING = m.Unmasking(MEMBER, (m.RevealedShare(MEMBER, m.ShareKind.SELF_SEED, b"t" * 32, b"v" * 32),), b"s" * 64)


@pytest.mark.parametrize(
    "report",
    [
        Heartbeat(),
        MatchAnswer(JobId("a-job"), None),
        MatchAnswer(JobId("a-job"), None, "1000+"),
        MatchAnswer(JobId("a-job"), Refusal("refused.match", "MISSING_CONCEPT", "https://x.example/c")),
        RoundReport(JobId("a-job"), RoundNumber(2), ADVERT),
        RoundReport(JobId("a-job"), RoundNumber(2), UNMASKING),
        RoundReport(JobId("a-job"), RoundNumber(2), m.InputTrailer(MEMBER, b"p" * 32, 80, (MEMBER,), b"s" * 64)),
    ],
)
def test_a_report_comes_back_as_it_was(report: object) -> None:
    wire = convert.report_to_proto(report).SerializeToString()  # type: ignore[arg-type]
    assert convert.report_from_proto(control_pb2.MemberReport.FromString(wire)) == report


@pytest.mark.parametrize(
    "message",
    [ADVERT, UNMASKING, m.InputTrailer(MEMBER, b"p" * 32, 80, (MEMBER,), b"s" * 64)],
)
def test_a_journal_gets_the_same_bytes_of_a_report_that_came_as_of_one_made_anew(message: m.MemberMessage) -> None:
    report = RoundReport(JobId("a-job"), RoundNumber(2), message)
    came = convert.report_to_proto(RoundReport(JobId("a-job"), RoundNumber(2), message, b"masked words"))
    unknown = bytes([0xFA, 0x07, 0x03]) + b"why"  # field 127, of a later version
    envelope = control_pb2.MemberReport.FromString(came.SerializeToString() + unknown)
    assert convert.take_bytes_of(envelope) == convert.report_to_bytes(report)


def test_reports_and_commands_travel_together_in_their_order() -> None:
    reports = (Heartbeat(), MatchAnswer(JobId("a-job"), None), Heartbeat())
    batch = control_pb2.ReportBatch.FromString(convert.reports_to_proto(reports, acknowledged=7).SerializeToString())
    assert (batch.acknowledged, convert.reports_from_proto(batch)) == (7, reports)
    commands = tuple(RoundCommand(JobId("a-job"), RoundNumber(number), DELIVERY) for number in (1, 2))
    sent = control_pb2.CommandBatch.FromString(convert.commands_to_proto(commands, first=4).SerializeToString())
    assert list(convert.commands_from_proto(sent)) == [(4, commands[0]), (5, commands[1])]


def test_more_messages_than_a_batch_may_have_are_refused_before_any_is_read() -> None:
    most = convert.MOST_IN_A_BATCH
    with pytest.raises(InputError, match="too many"):
        convert.reports_from_proto(control_pb2.ReportBatch(reports=[control_pb2.MemberReport()] * (most + 1)))
    with pytest.raises(InputError, match="too many"):
        next(convert.commands_from_proto(control_pb2.CommandBatch(commands=[control_pb2.ServerCommand()] * (most + 1))))


def test_a_command_that_cannot_be_read_stands_beside_the_others_with_its_reason() -> None:
    good = convert.command_to_proto(RoundCommand(JobId("a-job"), RoundNumber(1), DELIVERY), sequence=2)
    read = list(convert.commands_from_proto(control_pb2.CommandBatch(commands=[control_pb2.ServerCommand(), good])))
    assert isinstance(read[0][1], InputError)
    assert isinstance(read[1][1], RoundCommand)


@pytest.mark.parametrize(
    "command",
    [
        RoundInvite(Setup(JobId("a-job"), RoundNumber(1), TERMS, b"c" * 32)),
        RoundCommand(JobId("a-job"), RoundNumber(1), DELIVERY),
        RoundCommand(JobId("a-job"), RoundNumber(1), m.Roster((m.Leaf(MEMBER, b"d" * 32),), b"n" * 32, (ADVERT,))),
    ],
)
def test_a_command_comes_back_as_it_was(command: object) -> None:
    wire = convert.command_to_proto(command, sequence=9).SerializeToString()  # type: ignore[arg-type]
    assert convert.command_from_proto(control_pb2.ServerCommand.FromString(wire)) == (9, command)


@pytest.mark.parametrize(
    ("field", "value"),
    [("member", b"short"), ("identity", b"x" * 31), ("signature", b"x" * 65), ("nonce", b"")],
)
def test_an_advert_with_a_field_of_another_size_is_refused_by_name(field: str, value: bytes) -> None:
    message = convert.to_proto(ADVERT)
    setattr(message, field, value)
    with pytest.raises(InputError) as refused:
        convert.from_proto(message, m.Advert)
    assert field in refused.value.where


def test_an_unknown_share_kind_is_refused() -> None:
    message = convert.to_proto(UNMASKING)
    message.revealed[0].kind = 3
    with pytest.raises(InputError, match="unknown value"):
        convert.from_proto(message, m.Unmasking)


def test_an_empty_envelope_is_refused() -> None:
    with pytest.raises(InputError, match="without content"):
        convert.report_from_proto(control_pb2.MemberReport())


def test_terms_in_another_form_than_the_canonical_are_refused() -> None:
    message = convert.to_proto(Setup(JobId("a-job"), RoundNumber(1), TERMS, b"c" * 32))
    message.terms = message.terms.replace(b",", b", ", 1)
    with pytest.raises(InputError, match="canonical"):
        convert.from_proto(message, Setup)


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (m.Leaf(MEMBER, b"d" * 32), "member"),
        (m.Leaf(MEMBER, b"d" * 32), "advert_digest"),
        (m.Roster((), b"n" * 32, ()), "server_nonce"),
        (m.ShareDigests(MEMBER, b"1" * 32, b"2" * 32), "mask_key"),
        (m.ShareDigests(MEMBER, b"1" * 32, b"2" * 32), "self_seed"),
        (m.ShareMessage(MEMBER, (), (), b"s" * 64), "signature"),
        (DELIVERY.dealt[0], "signature"),
        (DELIVERY, "model_digest"),
        (m.InputTrailer(MEMBER, b"p" * 32, 80, (), b"s" * 64), "payload_digest"),
        (m.InputTrailer(MEMBER, b"p" * 32, 80, (), b"s" * 64), "signature"),
        (m.ConsistencySignature(MEMBER, b"s" * 64), "signature"),
        (UNMASKING.revealed[0], "salt"),
        (UNMASKING.revealed[0], "share"),
        (UNMASKING, "signature"),
        (Setup(JobId("a-job"), RoundNumber(1), TERMS, b"c" * 32), "nonce_commitment"),
    ],
)
@pytest.mark.parametrize("change", [lambda whole: whole[:-1], lambda whole: whole + b"x"])
def test_a_key_digest_or_signature_of_another_size_is_refused_by_name(
    value: object, field: str, change: Callable[[bytes], bytes]
) -> None:
    message = convert.to_proto(value)
    setattr(message, field, change(getattr(message, field)))
    with pytest.raises(InputError) as refused:
        convert.from_proto(message, type(value))
    assert refused.value.where == f"{type(value).__name__}.{field}"


def test_an_id_of_another_size_inside_a_list_is_refused_by_name() -> None:
    message = convert.to_proto(m.SurvivorSet((MEMBER,)))
    message.survivors.append(b"short")
    with pytest.raises(InputError) as refused:
        convert.from_proto(message, m.SurvivorSet)
    assert refused.value.where == "SurvivorSet.survivors"


def test_a_round_invite_without_its_setup_is_refused() -> None:
    with pytest.raises(InputError, match="lacks a part"):
        convert.command_from_proto(control_pb2.ServerCommand(sequence=1, round_invite=control_pb2.RoundInvite()))


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("code", "refused.match\x1b[2J"),
        ("code", ""),
        pytest.param("code", "x" * 60_000, id="long"),
        ("reason", "Patient Erika Mustermann"),
        ("reason", "AGE_IS_47;"),
        ("reason", ""),
        ("subject", "C:/data/patients.csv"),
        ("subject", "https://x.example/\x07"),
        ("subject", "age = 47"),
    ],
)
def test_a_refusal_in_other_than_stable_words_is_refused(field: str, text: str) -> None:
    words = {"code": "refused.match", "reason": "MISSING_CONCEPT", "subject": ""}
    refusal = control_pb2.Refusal(**(words | {field: text}))
    envelope = control_pb2.MemberReport(match_answer=control_pb2.MatchAnswer(job="a-job", refusal=refusal))
    with pytest.raises(InputError, match=f"Refusal.{field}"):
        convert.report_from_proto(envelope)


@pytest.mark.parametrize("text", ["aborted\x1b]0;you are root\x07", "a\rb", "a\x00b", "right\u202eleft"])
def test_a_text_that_could_steer_a_terminal_is_refused(text: str) -> None:
    envelope = control_pb2.ServerCommand(job_closed=control_pb2.JobClosed(job="a-job", state="aborted", reason=text))
    with pytest.raises(InputError, match="control characters"):
        convert.command_from_proto(envelope)


@pytest.mark.parametrize("coverage", ["137", "137+", "1e3+", "10", "patients"])
def test_a_coverage_other_than_a_power_of_ten_is_refused(coverage) -> None:
    envelope = control_pb2.MemberReport(match_answer=control_pb2.MatchAnswer(job="a-job", coverage=coverage))
    with pytest.raises(InputError):
        convert.report_from_proto(envelope)


@pytest.mark.parametrize(
    ("records", "told"), [(0, ""), (1, "1+"), (9, "1+"), (10, "10+"), (137, "100+"), (10**12, "1000000000+")]
)
def test_a_coverage_tells_no_more_than_the_power_of_ten(records, told) -> None:
    assert coverage_of(records) == told
    assert MatchAnswer(JobId("a-job"), None, told).coverage == told
