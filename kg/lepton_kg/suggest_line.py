"""A mapping's line as it is proposed for a column and a concept: unit, codes, way of writing dates.

A code is proposed for a value only if it is in the column. It names the value by label, synonym or notation; or the
value set is a yes and a no, and the column has one of the ways to write these two. What stays open is counted in the
line's justification, for the person who reviews it; a guess would refuse every row that it does not meet, or turn yes
into no.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from lepton_kg.concept import Concept
from lepton_kg.formulas import DATE
from lepton_kg.mapping import Column, DateFormat
from lepton_kg.suggest import ColumnProfile, normalized

#: Ways to write yes and no in a column, of which a column has one.
_ANSWERS = (
    ("true", "false"),
    ("t", "f"),
    ("yes", "no"),
    ("y", "n"),
    ("ja", "nein"),
    ("j", "n"),
    ("wahr", "falsch"),
    ("oui", "non"),
    ("si", "no"),
    ("是", "否"),
    ("1", "0"),
)
#: What a value is called that means yes, or no; by its labels and synonyms, never by its code.
_YES = frozenset({*(yes for yes, _ in _ANSWERS if yes != "1"), "present", "vorhanden", "有"})
_NO = frozenset({*(no for _, no in _ANSWERS if no != "0"), "absent", "nicht vorhanden", "无"})
#: Numbers beside 0 and 1 that stand for no value, such as -9 or 99; beside a 2, 1 need not be yes.
_NO_VALUE = re.compile(r"-\d+|9+")


def propose_line(
    concept: Concept, profile: ColumnProfile, *, unit: str | None, why: str, score: float | None
) -> Column:
    """The line for a column of that profile; `unit` is what its name tells, `why` what speaks for the concept."""
    codes = {} if concept.is_numeric else suggest_codes(concept, profile)
    told = [why, *([_open(profile, codes)] if concept.value_set else [])]
    return Column(
        column=profile.name,
        concept=concept.iri,
        unit=(unit or concept.unit) if concept.is_numeric else None,
        codes=codes,
        date_format=_date_format(concept, profile),
        justification="; ".join(text for text in told if text)[:2_000],
        score=score,
    )


def suggest_codes(concept: Concept, column: ColumnProfile) -> dict[str, str]:
    """Raw code of the column -> IRI of the value that it means; a code that may mean anything is left out.

    Of a column whose codes are not known, having too many or none, the value set's notations are proposed.
    """
    if not column.distinct_values:
        return {value.notation: value.iri for value in concept.value_set if value.notation is not None}
    found = _named(concept, column.distinct_values)
    answers = _answers(concept, column.distinct_values)
    # Where a notation says otherwise, such as 0 for yes, the ontology is right and the way of writing is not known.
    agreed = all(found.get(raw, iri) == iri for raw, iri in answers.items())
    return dict(sorted({**answers, **found}.items())) if agreed else found


def _named(concept: Concept, codes: Sequence[str]) -> dict[str, str]:
    """Raw code -> the one value that it names."""
    named: dict[str, set[str]] = {}
    for value in concept.value_set:
        for text in (*value.labels.values(), *value.synonyms, value.notation or ""):
            named.setdefault(_word(text), set()).add(value.iri)
    meant = {raw: named.get(_word(raw), set()) for raw in codes}
    return {raw: next(iter(values)) for raw, values in meant.items() if len(values) == 1 and _word(raw)}


def _word(code: str) -> str:
    """The code as words; one without letters is what it is, since -1 is not 1, and + not -."""
    return normalized(code) if any(sign.isalpha() for sign in code) else code.strip()


def open_codes(column: Column, profile: ColumnProfile) -> tuple[str, ...]:
    """The column's codes that the line gives no meaning, missing ones aside."""
    return tuple(raw for raw in profile.distinct_values if raw not in column.codes and raw not in column.missing)


def _answers(concept: Concept, codes: Sequence[str]) -> dict[str, str]:
    """Raw code -> value, if the value set is a yes and a no and one way of writing them is among the codes, whole."""
    if len(concept.value_set) != 2:
        return {}
    called = [{normalized(name) for name in (*v.labels.values(), *v.synonyms)} for v in concept.value_set]
    yes = [
        value.iri for value, names in zip(concept.value_set, called, strict=True) if names & _YES and not names & _NO
    ]
    no = [value.iri for value, names in zip(concept.value_set, called, strict=True) if names & _NO and not names & _YES]
    if len(yes) != 1 or len(no) != 1:
        return {}
    raws: dict[str, list[str]] = {}
    for raw in codes:
        raws.setdefault(_word(raw), []).append(raw)
    ways = [way for way in _ANSWERS if raws.keys() >= set(way)]
    others = [raw for raw in codes if raw not in {"0", "1"}]
    if len(ways) != 1 or (ways[0] == ("1", "0") and any(_is_another_number(raw) for raw in others)):
        return {}
    meant = dict(zip(ways[0], (yes[0], no[0]), strict=True))
    return {raw: iri for word, iri in meant.items() for raw in raws[word]}


def _is_another_number(raw: str) -> bool:
    return re.fullmatch(r"[+-]?[\d.,]+", raw) is not None and _NO_VALUE.fullmatch(raw) is None


def _open(profile: ColumnProfile, codes: dict[str, str]) -> str:
    known, count = len(codes.keys() & set(profile.distinct_values)), len(profile.distinct_values)
    if not count:
        return "codes are the ontology's notations: the column's own are not known" if codes else "codes are left open"
    return f"{count - known} of {count} codes are left open" if known < count else ""


def _date_format(concept: Concept, profile: ColumnProfile) -> DateFormat | None:
    """The one way in which a date column is written, where it has to be said; a person decides between several."""
    ways = profile.date_formats if concept.datatype == DATE else ()
    return ways[0] if len(ways) == 1 and ways[0] != "YYYY-MM-DD" else None
