"""The ledger's chain cannot be changed unseen, and the budget binds over all jobs composed."""

import dataclasses

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lepton_core.errors import BudgetRefusal, ConflictError, IdentityError, InputError
from lepton_core.ids import digest_of
from lepton_core.privacy.accountant import epsilon_of
from lepton_core.privacy.events import SampledGaussian
from lepton_core.privacy.ledger import (
    EMPTY,
    Charge,
    ChargeState,
    append,
    parse_line,
    require_budget,
    spent_events,
    verify,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
CHECK = KEY.public_key().verify
EVENT = SampledGaussian(2.25, 0.5, 4)
RESERVED, SPENT = ChargeState.RESERVED, ChargeState.SPENT


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


def chain(*steps, start=()):
    entries = list(start)
    for what, state in steps:
        head = entries[-1].head() if entries else EMPTY
        entries.append(append(head, what, state, time=1_700_000_000.5 + len(entries), sign=KEY.sign))
    return entries


GOOD = chain((charge(1), RESERVED), (charge(2), RESERVED), (charge(1), SPENT), (charge(2), SPENT))


def test_a_chain_verifies_to_its_last_entry():
    assert verify(GOOD, check=CHECK) == GOOD[-1].head()
    assert verify([], check=CHECK) == EMPTY


def test_every_entry_survives_its_line_and_a_changed_line_is_refused():
    for entry in GOOD:
        line = entry.to_line()
        assert line.endswith(b"\n")
        assert parse_line(line) == entry
        with pytest.raises(InputError):
            parse_line(line.replace(b'"round":', b'"round": '))


@pytest.mark.parametrize("line", [b"", b"[]", b"{}", b"\xff", b'{"entry":{},"signature":""}', b'{"entry":7}'])
def test_a_line_that_is_no_entry_is_refused(line):
    with pytest.raises(InputError, match="ledger"):
        parse_line(line)


@pytest.mark.parametrize("missing", range(3))
def test_an_entry_left_out_breaks_the_chain(missing):
    with pytest.raises(ConflictError, match="chain is broken"):
        verify(GOOD[:missing] + GOOD[missing + 1 :], check=CHECK)


def test_entries_that_changed_places_break_the_chain():
    with pytest.raises(ConflictError, match="chain is broken"):
        verify([GOOD[1], GOOD[0], *GOOD[2:]], check=CHECK)


@pytest.mark.parametrize(
    "change",
    [
        {"charge": charge(1, event=SampledGaussian(225.0, 0.5, 4))},
        {"charge": charge(1, population="others")},
        {"time": 0.0},
        {"state": SPENT},
    ],
)
def test_an_entry_changed_after_it_was_signed_is_found(change):
    with pytest.raises(IdentityError, match="signature"):
        verify([dataclasses.replace(GOOD[0], **change), *GOOD[1:]], check=CHECK)


def test_a_chain_signed_by_another_key_is_found():
    other = Ed25519PrivateKey.generate().public_key().verify
    with pytest.raises(IdentityError, match="signature"):
        verify(GOOD, check=other)


@pytest.mark.parametrize(
    "steps",
    [
        [(charge(1), SPENT)],
        [(charge(1), RESERVED), (charge(1), RESERVED)],
        [(charge(1), RESERVED), (charge(1), SPENT), (charge(1), SPENT)],
        [(charge(1), RESERVED), (charge(1, event=SampledGaussian(9.0, 0.5, 4)), SPENT)],
    ],
)
def test_a_round_charged_out_of_order_is_found(steps):
    with pytest.raises(ConflictError, match="out of order"):
        verify(chain(*steps), check=CHECK)


def test_reserved_counts_as_spent_and_a_round_counts_once():
    assert spent_events(GOOD[:1], "patients") == [EVENT]
    assert spent_events(GOOD, "patients") == [EVENT, EVENT]
    both_jobs = chain((charge(1, job="b"), RESERVED), start=GOOD)
    assert spent_events(both_jobs, "patients") == [EVENT] * 3


def test_populations_are_counted_apart():
    entries = chain((charge(1, population="donors"), RESERVED), start=GOOD)
    assert spent_events(entries, "donors") == [EVENT]
    assert spent_events(entries, "nobody") == []


def test_a_population_charged_under_two_units_cannot_be_added_up():
    entries = chain((charge(1, job="b", unit="subject"), RESERVED), start=GOOD)
    with pytest.raises(ConflictError, match="two kinds"):
        spent_events(entries, "patients")


def test_the_budget_binds_over_jobs_composed_and_not_summed():
    job = [EVENT] * 20
    one = epsilon_of(job, 1e-3)
    two = epsilon_of(job * 2, 1e-3)
    assert two < 2 * one
    entries = chain(*((charge(number), RESERVED) for number in range(1, 21)))
    budget = require_budget(entries, "patients", job, two, 1e-3)
    assert (budget.spent, budget.after, budget.left) == (one, two, two - one)
    with pytest.raises(BudgetRefusal) as refused:
        require_budget(entries, "patients", job, two - 1e-6, 1e-3)
    assert refused.value.where == "population patients"
    for part in (f"{one:.4g} is spent", f"{one:.4g} is asked", "is left"):
        assert part in refused.value.got


@pytest.mark.parametrize(
    "change",
    [{"round": 0}, {"delta": 0.0}, {"job": "abc"}, {"plan": "abc"}, {"population": ""}, {"unit": ""}],
)
def test_a_charge_that_says_nothing_cannot_be_made(change):
    with pytest.raises(InputError):
        dataclasses.replace(charge(), **change)


def test_a_signature_of_another_length_or_a_time_without_meaning_is_refused():
    with pytest.raises(InputError, match="Ed25519"):
        append(EMPTY, charge(), RESERVED, time=1.0, sign=lambda data: data[:63])
    with pytest.raises(InputError, match="time"):
        append(EMPTY, charge(), RESERVED, time=float("nan"), sign=KEY.sign)
