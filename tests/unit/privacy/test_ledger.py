"""The ledger's chain cannot be changed unseen, and the budget binds over all jobs composed."""

import dataclasses
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lepton_core.errors import BudgetRefusal, ConflictError, IdentityError, InputError
from lepton_core.identity import IdentityKey
from lepton_core.ids import digest_of
from lepton_core.privacy.accountant import epsilon_of
from lepton_core.privacy.events import Replaced, SampledGaussian
from lepton_core.privacy.ledger import (
    EMPTY,
    Budget,
    Charge,
    ChargeState,
    LedgerEntry,
    accounts_of,
    append,
    parse_line,
    require_budget,
    spent_events,
    succeed,
    verify,
)

KEY = IdentityKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
HEIR = IdentityKey(Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
EVENT = SampledGaussian(2.25, 0.5, 4)
RESERVED, SPENT, LOST, RELEASED = ChargeState


FIRST_FORMAT = Path(__file__).parents[2] / "vectors" / "ledger" / "format-1.jsonl"


def charge(number=1, *, job="a", population="patients", event=EVENT, unit="record"):
    return Charge(
        population=population,
        unit=unit,
        relation="add-or-remove",
        job=digest_of(job.encode()),
        round=number,
        event=event,
        delta=1e-3,
        plan=digest_of(b"plan"),
    )


def chain(*steps, start=(), key=KEY):
    """Each step: what is charged, the state, and then the rounds and what is published."""
    entries = list(start)
    for what, state, *more in steps:
        head = entries[-1].head() if entries else EMPTY
        options = dict(zip(("rounds", "published"), more, strict=False))
        entries.append(append(head, what, state, time=1_700_000_000.5 + len(entries), sign=key.sign, **options))
    return entries


GOOD = chain((charge(1), RESERVED), (charge(2), RESERVED), (charge(1), SPENT), (charge(2), SPENT))


def test_a_chain_verifies_to_its_last_entry():
    assert verify(GOOD, KEY.public) == GOOD[-1].head()
    assert verify([], KEY.public) == EMPTY


def test_every_entry_survives_its_line_and_a_changed_line_is_refused():
    for entry in GOOD:
        line = entry.to_line()
        assert line.endswith(b"\n")
        assert parse_line(line) == entry
        with pytest.raises(InputError):
            parse_line(line.replace(b'"round":', b'"round": '))
        with pytest.raises(InputError):
            parse_line(line.replace(b'"format":2', b'"format":1'))


@pytest.mark.parametrize("line", [b"", b"[]", b"{}", b"\xff", b'{"entry":{},"signature":""}', b'{"entry":7}'])
def test_a_line_that_is_no_entry_is_refused(line):
    with pytest.raises(InputError, match="ledger"):
        parse_line(line)


@pytest.mark.parametrize("missing", range(3))
def test_an_entry_left_out_breaks_the_chain(missing):
    with pytest.raises(ConflictError, match="chain is broken"):
        verify(GOOD[:missing] + GOOD[missing + 1 :], KEY.public)


def test_entries_that_changed_places_break_the_chain():
    with pytest.raises(ConflictError, match="chain is broken"):
        verify([GOOD[1], GOOD[0], *GOOD[2:]], KEY.public)


@pytest.mark.parametrize(
    "change",
    [
        {"charge": charge(1, event=SampledGaussian(225.0, 0.5, 4))},
        {"charge": charge(1, population="others")},
        {"time": 0.0},
        {"state": SPENT},
        {"rounds": 2},
        {"published": 1},
    ],
)
def test_an_entry_changed_after_it_was_signed_is_found(change):
    with pytest.raises(IdentityError, match="signature"):
        verify([dataclasses.replace(GOOD[0], **change), *GOOD[1:]], KEY.public)


def test_a_chain_signed_by_another_key_is_found():
    with pytest.raises(IdentityError, match="signature"):
        verify(GOOD, HEIR.public)


@pytest.mark.parametrize(
    "steps",
    [
        [(charge(1), SPENT)],
        [(charge(1), LOST)],
        [(charge(1), RELEASED)],
        [(charge(1), RESERVED), (charge(1), SPENT), (charge(1), SPENT)],
        [(charge(1), RESERVED), (charge(1), SPENT), (charge(2), SPENT)],
        [(charge(1), RESERVED, 3), (charge(1), SPENT), (charge(1), SPENT)],
        [(charge(1), RESERVED, 3), (charge(1), LOST), (charge(1), SPENT)],
        [(charge(1), RESERVED, 3), (charge(1), SPENT), (charge(1), LOST)],
        [(charge(1), RESERVED), (charge(0), LOST), (charge(1), SPENT)],
        [(charge(1), RESERVED, 3), (charge(1), SPENT), (charge(0), RELEASED, 3)],
        [(charge(1), RESERVED, 3), (charge(0), LOST), (charge(0), RELEASED, 3)],
        [(charge(1), RESERVED, 3), (charge(0), RELEASED, 3), (charge(1), SPENT)],
        [(charge(1), RESERVED, 3), (charge(1), SPENT, 1, 1)],
        [(charge(1), RESERVED), (charge(1, job="b"), SPENT)],
        [(charge(1), RESERVED), (charge(1, population="others"), SPENT)],
        [(charge(1), RESERVED), (charge(1, event=SampledGaussian(9.0, 0.5, 4)), SPENT)],
        [(charge(1), RESERVED), (charge(1, event=SampledGaussian(9.0, 0.5, 4)), RESERVED)],
    ],
)
def test_a_round_charged_out_of_order_is_found(steps):
    with pytest.raises(ConflictError, match="out of order"):
        verify(chain(*steps), KEY.public)


def test_reserved_counts_as_spent_and_a_round_counts_once():
    assert spent_events(GOOD[:1], "patients") == [EVENT]
    assert spent_events(GOOD, "patients") == [EVENT, EVENT]
    both_jobs = chain((charge(1, job="b"), RESERVED), start=GOOD)
    assert spent_events(both_jobs, "patients") == [EVENT] * 3


def test_populations_are_counted_apart():
    entries = chain((charge(1, population="donors"), RESERVED), start=GOOD)
    assert spent_events(entries, "donors") == [EVENT]
    assert spent_events(entries, "nobody") == []


def test_what_was_charged_for_subjects_counts_for_a_record_as_a_subject_replaced():
    entries = chain((charge(1, job="b", unit="subject"), RESERVED), start=GOOD)
    assert spent_events(entries, "patients") == [EVENT, EVENT, Replaced(EVENT)]
    alone = chain((charge(1, unit="subject"), RESERVED), (charge(1, unit="subject"), SPENT))
    for_subject, for_record = (spent_events(alone, "patients", unit=unit) for unit in ("subject", "record"))
    assert (for_subject, for_record) == ([EVENT], [Replaced(EVENT)])
    # A subject's epsilon is none for a record of one: its vector changes by up to twice the bound.
    assert epsilon_of(for_subject, 1e-3) < epsilon_of(for_record, 1e-3)


def test_a_budget_for_records_binds_what_is_charged_for_subjects():
    entries = chain(*((charge(number, unit="subject"), RESERVED) for number in range(1, 6)))
    spent = epsilon_of([Replaced(EVENT)] * 5, 1e-3)
    after = epsilon_of([*[Replaced(EVENT)] * 5, EVENT], 1e-3)
    assert require_budget(spent_events(entries, "patients"), "patients", [EVENT], after, 1e-3) == Budget(
        after, spent, after
    )
    with pytest.raises(BudgetRefusal, match="for one record") as refused:
        require_budget(spent_events(entries, "patients"), "patients", [EVENT], after - 1e-6, 1e-3)
    assert refused.value.reason == "BUDGET_EXCEEDED"


def test_what_was_charged_for_records_has_no_bound_for_a_subject_and_is_refused():
    for entries in (GOOD, chain((charge(9, job="b", unit="subject"), RESERVED), start=GOOD)):
        with pytest.raises(BudgetRefusal) as refused:
            spent_events(entries, "patients", unit="subject")
        assert refused.value.reason == "RECORD_CHARGES"
    assert spent_events(GOOD, "donors", unit="subject") == []


def test_what_was_charged_for_a_member_counts_for_its_records_and_subjects_and_not_the_other_way_round():
    entries = chain((charge(1, unit="member"), RESERVED))
    assert spent_events(entries, "patients", unit="member") == [EVENT]
    assert [spent_events(entries, "patients", unit=unit) for unit in ("record", "subject")] == [[Replaced(EVENT)]] * 2
    for unit in ("record", "subject"):
        with pytest.raises(BudgetRefusal) as refused:
            spent_events(chain((charge(1, unit=unit), RESERVED)), "patients", unit="member")
        assert refused.value.reason == f"{unit.upper()}_CHARGES"


def test_units_and_relations_that_are_not_known_are_never_added_up():
    for changes in ({"unit": "household"}, {"relation": "replace"}):
        entries = chain((dataclasses.replace(charge(1, job="b"), **changes), RESERVED), start=GOOD)
        with pytest.raises((BudgetRefusal, ConflictError)) as refused:
            spent_events(entries, "patients")
        assert refused.value.reason != "RECORD_CHARGES"


def test_the_budget_binds_over_jobs_composed_and_not_summed():
    job = [EVENT] * 20
    one = epsilon_of(job, 1e-3)
    two = epsilon_of(job * 2, 1e-3)
    assert two < 2 * one
    entries = chain(*((charge(number), RESERVED) for number in range(1, 21)))
    budget = require_budget(spent_events(entries, "patients"), "patients", job, two, 1e-3)
    assert (budget.spent, budget.after, budget.left) == (one, two, two - one)
    with pytest.raises(BudgetRefusal) as refused:
        require_budget(spent_events(entries, "patients"), "patients", job, two - 1e-6, 1e-3)
    assert refused.value.where == "population patients"
    for part in (f"{one:.4g} is spent", f"{one:.4g} is asked", "is left"):
        assert part in refused.value.got


@pytest.mark.parametrize(
    "change",
    [
        {"round": -1},
        {"delta": 0.0},
        {"delta": -1e-9},
        {"delta": 1.0},
        {"content": "abc"},
        {"job": "abc"},
        {"plan": "abc"},
        {"population": ""},
        {"unit": ""},
    ],
)
def test_a_charge_that_says_nothing_cannot_be_made(change):
    with pytest.raises(InputError):
        dataclasses.replace(charge(), **change)


def test_a_signature_of_another_length_or_a_time_without_meaning_is_refused():
    with pytest.raises(InputError, match="Ed25519"):
        append(EMPTY, charge(), RESERVED, time=1.0, sign=lambda data: data[:63])
    with pytest.raises(InputError, match="time"):
        append(EMPTY, charge(), RESERVED, time=float("nan"), sign=KEY.sign)


def test_a_block_is_charged_whole_until_what_never_began_is_released():
    block = chain((charge(4), RESERVED, 20))
    assert spent_events(block, "patients") == [EVENT] * 20
    used = chain((charge(4), SPENT), (charge(6), LOST), (charge(0), LOST), (charge(9), SPENT), start=block)
    assert spent_events(used, "patients") == [EVENT] * 20
    over = chain((charge(0), RELEASED, 16), start=used)
    assert spent_events(over, "patients") == [EVENT] * 4
    ((_, account),) = accounts_of(over)
    assert (account.charged, account.used, account.open, account.spent) == (4, 4, 0, {4, 9})
    again = chain((charge(11), RESERVED, 5), (charge(11), SPENT), start=over)
    assert spent_events(again, "patients") == [EVENT] * 9
    assert verify(again, KEY.public) == again[-1].head()
    assert [parse_line(entry.to_line()) for entry in again] == again


def test_what_is_published_is_told_by_the_entries_that_follow():
    entries = chain((charge(1), RESERVED, 5), (charge(1), SPENT), (charge(2), SPENT, 1, 1), (charge(0), LOST, 1, 1))
    ((_, account),) = accounts_of(entries)
    assert (account.used, account.published, account.unreleased) == (3, 1, 2)


@pytest.mark.parametrize(
    ("what", "state", "more"),
    [
        (charge(0), RESERVED, {}),
        (charge(0), SPENT, {}),
        (charge(1), RESERVED, {"rounds": 0}),
        (charge(1), SPENT, {"rounds": 2}),
        (charge(1), LOST, {"rounds": 2}),
        (charge(1), SPENT, {"published": -1}),
    ],
)
def test_an_entry_that_says_nothing_cannot_be_made(what, state, more):
    with pytest.raises(InputError, match="says nothing"):
        append(EMPTY, what, state, time=1.0, sign=KEY.sign, **more)


def test_changed_content_inherits_what_is_spent_and_a_changed_plan_too():
    other = dataclasses.replace(charge(2), content=digest_of(b"other rows"), plan=digest_of(b"other plan"))
    entries = chain((charge(1), RESERVED, 3), (charge(1), SPENT), (other, SPENT))
    verify(entries, KEY.public)
    assert spent_events(entries, "patients") == [EVENT] * 3
    assert json.loads(entries[2].to_line())["entry"]["content"] == digest_of(b"other rows")


# Format 1 ---------------------------------------------------------------------------------------------------------


def first_format():
    return [parse_line(line) for line in FIRST_FORMAT.read_bytes().splitlines()]


def test_a_ledger_of_the_first_format_is_read_counted_and_gone_on_with():
    entries = first_format()
    assert b"".join(entry.to_line() for entry in entries) == FIRST_FORMAT.read_bytes()
    assert verify(entries, KEY.public) == entries[-1].head()
    assert (len(spent_events(entries, "patients")), len(spent_events(entries, "donors"))) == (4, 1)
    # Round 2 was reserved and never spent. It began, so it is never released, and never again begun.
    known = entries[2].charge
    assert accounts_of(entries).find("patients", known.job).open == 0
    for refused in ((known, SPENT), (known, LOST), (dataclasses.replace(known, round=0), RELEASED)):
        with pytest.raises(ConflictError, match="out of order"):
            verify(chain(refused, start=entries), KEY.public)
    later = dataclasses.replace(known, round=9)
    mixed = chain(
        (later, RESERVED, 4), (later, SPENT), (dataclasses.replace(known, round=0), RELEASED, 3), start=entries
    )
    assert verify(mixed, KEY.public) == mixed[-1].head()
    assert len(spent_events(mixed, "patients")) == 5


@pytest.mark.parametrize("more", [{"rounds": 2}, {"published": 1}, {"state": LOST}, {"state": RELEASED}, {"format": 3}])
def test_the_first_format_says_nothing_that_it_did_not_know(more):
    with pytest.raises(InputError):
        dataclasses.replace(first_format()[0], **more)


def test_a_round_of_the_first_format_is_reserved_once_and_spent_once():
    entries = first_format()
    fields = {"previous": entries[-1].digest(), "sequence": len(entries) + 1}
    for repeated in entries[:2]:
        again = dataclasses.replace(repeated, **fields)
        again = dataclasses.replace(again, signature=KEY.sign(again.signed_bytes()))
        assert isinstance(again, LedgerEntry)
        with pytest.raises(ConflictError, match="out of order"):
            verify([*entries, again], KEY.public)


# Succession -------------------------------------------------------------------------------------------------------


def succession(start, predecessor=KEY, successor=HEIR):
    head = start[-1].head() if start else EMPTY
    one = succeed(head, predecessor.public, successor.public, time=1_800_000_000.0, sign=successor.sign)
    return [*start, one]


def test_a_successor_goes_on_with_the_chain_and_keeps_what_is_spent():
    start = chain((charge(1), RESERVED, 20), (charge(1), SPENT))
    inherited = succession(start)
    later = chain((charge(30), RESERVED, 2), (charge(30), SPENT), start=inherited, key=HEIR)
    assert verify(later, HEIR.public) == later[-1].head()
    assert [parse_line(entry.to_line()) for entry in later] == later
    # Nobody knows what the lost machine did with the rest of its block: it stays charged.
    assert spent_events(later, "patients") == [EVENT] * 22
    with pytest.raises(ConflictError, match="out of order"):
        verify(chain((charge(0), RELEASED, 2), start=later, key=HEIR), HEIR.public)


def test_a_succession_is_believed_from_the_key_that_signs_now_back_to_the_first():
    third = IdentityKey(Ed25519PrivateKey.from_private_bytes(bytes(range(2, 34))))
    start = chain((charge(1), RESERVED), (charge(1), SPENT))
    twice = succession(succession(start), HEIR, third)
    assert verify(twice, third.public) == twice[-1].head()
    with pytest.raises(IdentityError):
        verify(twice, HEIR.public)
    for forged in (succession(start, third, HEIR), succession(succession(start), KEY, third)):
        with pytest.raises(IdentityError):
            verify(forged, forged[-1].successor)
    with pytest.raises(IdentityError):  # the old key signs on
        verify(chain((charge(2), RESERVED), start=succession(start)), HEIR.public)
    with pytest.raises(ConflictError, match="chain is broken"):
        verify([start[0], succession(start)[-1]], HEIR.public)
    with pytest.raises(InputError, match="two identities"):
        succession(start, HEIR, HEIR)
