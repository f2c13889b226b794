"""Whom a privacy promise is to, and what a charge made for one of them costs the other.

| charged for | costs a record | costs a subject |
|---|---|---|
| a record | the event | without bound: a subject may have any number of records |
| a subject | the event for a subject that is replaced (`Replaced`) | the event |
| a member | the event for a member that is replaced | the same |

Two data sets that differ by one record hold the same subjects, of whom one has another record; so for a record, a
subject's vector is not added or removed but replaced by any other one within the clipping norm. That costs more than a
removal, up to what one of twice the length would: epsilon for a subject is no bound for a record. So it is with the
vector of a member, for the records and the subjects of that site.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from lepton_core.errors import BudgetRefusal
from lepton_core.privacy.events import Counted, Event, Replaced

#: Whom a promise can be to.
Unit = Literal["record", "subject", "member"]
#: One record.
UNIT_RECORD: Literal["record"] = "record"
#: One subject with all its records at a site.
UNIT_SUBJECT: Literal["subject"] = "subject"
#: One member, whatever records it has.
UNIT_MEMBER: Literal["member"] = "member"
#: From the smallest to the largest: each is a part of the next.
_UNITS: tuple[Unit, ...] = (UNIT_RECORD, UNIT_SUBJECT, UNIT_MEMBER)
#: What the smaller ones' charges are called where they have no bound.
_SMALLER = {"record": "RECORD_CHARGES", "subject": "SUBJECT_CHARGES"}
#: Neighbouring data sets in words.
NEIGHBOURS: Mapping[Unit, str] = {
    UNIT_RECORD: "one record, added or removed",
    UNIT_SUBJECT: "one subject with all its records at a site, added or removed",
    UNIT_MEMBER: "one member, its whole update in a round's sum or nothing in its place",
}


def event_for(unit: str, charged_for: str, event: Event) -> Counted:
    """What an event that was charged for one unit is for another, as the accountant counts it.

    Raises:
        BudgetRefusal: RECORD_CHARGES, a charge for records for a larger unit; SUBJECT_CHARGES; UNKNOWN_UNIT.
    """
    if unit == charged_for:
        return event
    known = unit in _UNITS and charged_for in _UNITS
    if known and _UNITS.index(unit) < _UNITS.index(charged_for):
        return Replaced(event)
    raise BudgetRefusal(
        f"what is charged for a {charged_for} has no bound for a {unit}",
        where="privacy.unit",
        expected=f"a population of which every job was charged for a {unit}",
        got=f"a charge for a {charged_for}",
        hint=f'take a population that was never charged so, and privacy.unit = "{unit}" in all its jobs',
        reason=_SMALLER[charged_for] if known and charged_for in _SMALLER else "UNKNOWN_UNIT",
    )
