"""How well a mapping's suggestions hit: columns of public data under altered names, among 200 other concepts.

Columns of scikit-learn's breast cancer, diabetes (without s1 to s6, which nobody could guess) and wine sets are
renamed, abbreviated, translated, or given a unit with the values converted; a seed draws which. No altered name is a
label or synonym of the ontology, and the translations are of languages that it does not have. The set is held out: the
suggester's words and weights are tuned on other columns (`tests/unit/kg/test_suggest.py`).
"""

from __future__ import annotations

import argparse
import random
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from benchmarks.suggest_data.words import DISTRACTORS, RENAMED, TRANSLATED
from lepton_kg.mapping import Source
from lepton_kg.ontology import Ontology, parse_ontology
from lepton_kg.suggest import ACCEPT_SCORE, profile_columns, suggest

_HOSPITALS = Path(__file__).resolve().parents[1] / "examples" / "hospitals" / "ontology.ttl"
_IRI = "https://example.org/"
_PREFIXES = f"""
@prefix s: <{_IRI}suggest/> .
@prefix lepton: <https://w3id.org/lepton/kg#> .
@prefix skos: <http://www.w3.org/2004/02/skos/core#> .
@prefix xsd: <http://www.w3.org/2001/XMLSchema#> .
"""
#: Name in scikit-learn -> label, synonyms, UCUM unit, plausible range. The sets are public; so are the ranges.
_DIABETES = {
    "age": ("age", ("age of the patient",), "a", (0.0, 120.0)),
    "bmi": ("body mass index", ("BMI",), "kg/m2", (10.0, 70.0)),
    "bp": ("mean arterial pressure", ("average blood pressure",), "mm[Hg]", (40.0, 180.0)),
}
_WINE = {
    "alcohol": ("alcohol", ("alcohol by volume",), "%", (8.0, 20.0)),
    "malic_acid": ("malic acid", (), "g/L", (0.0, 10.0)),
    "ash": ("ash", ("ash content",), "g/L", (0.5, 5.0)),
    "alcalinity_of_ash": ("alcalinity of ash", ("alkalinity of ash",), "meq/L", (5.0, 40.0)),
    "magnesium": ("magnesium", ("Mg",), "mg/L", (50.0, 250.0)),
    "total_phenols": ("total phenols", (), "g/L", (0.0, 8.0)),
    "flavanoids": ("flavanoids", ("flavonoids",), "g/L", (0.0, 8.0)),
    "nonflavanoid_phenols": ("nonflavanoid phenols", (), "g/L", (0.0, 2.0)),
    "proanthocyanins": ("proanthocyanins", (), "g/L", (0.0, 6.0)),
    "color_intensity": ("color intensity", ("colour intensity",), "1", (0.0, 20.0)),
    "hue": ("hue", (), "1", (0.3, 2.5)),
    "od280/od315_of_diluted_wines": ("OD280/OD315 of diluted wines", ("protein content",), "1", (0.5, 6.0)),
    "proline": ("proline", (), "mg/L", (100.0, 2500.0)),
}
#: Unit in the ontology -> how a column may write another unit, and what the values are multiplied by.
_OTHER_UNITS: Mapping[str, tuple[tuple[str, float], ...]] = {
    "mm": (("cm", 0.1), ("um", 1000.0)),
    "mm2": (("cm2", 0.01), ("mm2", 1.0)),
    "kg/m2": (("kg/m2", 1.0),),
    "mm[Hg]": (("mmHg", 1.0), ("kPa", 0.133322387415)),
    "a": (("years", 1.0),),
    "g/L": (("mg/L", 1000.0), ("g/L", 1.0)),
    "mg/L": (("mg/L", 1.0), ("g/L", 0.001)),
    "%": (("%", 1.0),),
    "meq/L": (("meq/L", 1.0),),
}
KINDS = ("renamed", "abbreviated", "translated", "unit-suffixed")


@dataclass(frozen=True)
class Held:
    """A column that is held out: its label's words, its concept, unit and values."""

    label: str
    iri: str
    unit: str | None
    cells: pl.Series


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Seeds."""
    parser.add_argument("--suggest-seeds", type=int, default=5, help="draws of altered names, from 0")
    parser.add_argument(
        "--suggest-misses", action="store_true", help="show the columns whose first suggestion is wrong"
    )


def run(args: argparse.Namespace) -> dict[str, object]:
    """One row an alteration, and the three figures."""
    return measure(seeds=args.suggest_seeds, misses=args.suggest_misses)


def measure(*, seeds: int = 5, misses: bool = False) -> dict[str, object]:
    """`suggest_top1`, `suggest_top5`, and `suggest_wrong_accepted`: the share of wrong ones above the threshold."""
    ontology = build_ontology()
    columns = held_out(ontology)
    names = {_plain(name) for concept in ontology.concepts.values() for name in _words_of(concept)}
    hits: dict[str, list[tuple[bool, bool]]] = {kind: [] for kind in KINDS}
    accepted: list[bool] = []
    missed: list[str] = []
    for seed in range(seeds):
        draw = random.Random(seed)
        for column in columns:
            kind, name, cells = alter(column, draw, names)
            (found,) = suggest(ontology, profile_columns(pl.DataFrame({name: cells}), _SOURCE), _IRI)
            ranked = [candidate.concept for candidate in found.candidates[:5]]
            first = ranked[:1] == [column.iri]
            hits[kind].append((first, column.iri in ranked))
            if found.candidates and found.candidates[0].score >= ACCEPT_SCORE:
                accepted.append(first)
            if not first:
                missed.append(f"{kind}: {name} is {column.label}, not {(ranked or ['nothing'])[0].rpartition('/')[2]}")
    every = [hit for kind in KINDS for hit in hits[kind]]
    result: dict[str, object] = {
        "suggest_by_alteration": [
            {
                "alteration": kind,
                "columns": len(hits[kind]),
                "top1": _share([a for a, _ in hits[kind]]),
                "top5": _share([b for _, b in hits[kind]]),
            }
            for kind in KINDS
        ],
        "suggest_top1": _share([first for first, _ in every]),
        "suggest_top5": _share([within for _, within in every]),
        "suggest_wrong_accepted": 1.0 - _share(accepted) if accepted else 0.0,
        "suggest_accepted": len(accepted) / len(every),
        "suggest_concepts": sum(concept.is_observable for concept in ontology.concepts.values()),
    }
    return result | ({"suggest_misses": missed} if misses else {})


_SOURCE = Source(kind="parquet", path="held-out.parquet")


def build_ontology() -> Ontology:
    """The hospitals' concepts, those of the other two sets, and 200 that are none of them."""
    parts = [_HOSPITALS.read_text("utf-8"), _PREFIXES]
    for name, (label, synonyms, unit, ends) in {**_DIABETES, **_WINE}.items():
        parts.append(_turtle(label, synonyms, unit, ends, local=_local(name)))
    parts.append(
        's:sex a skos:Concept ; skos:prefLabel "sex"@en ; lepton:datatype xsd:string ; lepton:valueSet s:sexes .\n'
        "s:sexes a skos:Collection ; skos:member s:male, s:female .\n"
        's:male a skos:Concept ; skos:prefLabel "male"@en ; skos:notation "1" .\n'
        's:female a skos:Concept ; skos:prefLabel "female"@en ; skos:notation "2" .\n'
    )
    parts += [_turtle(label, (), unit, (low, high), local=_local(label)) for label, unit, low, high in DISTRACTORS]
    return parse_ontology("\n".join(parts).encode(), format="turtle", source="suggest")


def held_out(ontology: Ontology) -> list[Held]:
    """The 47 columns with their concepts."""
    from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine

    cancer, diabetes, wine = load_breast_cancer(), load_diabetes(scaled=False), load_wine()
    held = []
    for place, given in enumerate(cancer.feature_names):
        iri = f"{_IRI}hospitals/{str(given).replace(' ', '-')}"
        held.append(Held(str(given), iri, ontology.concept(iri).unit, pl.Series(cancer.data[:, place])))
    for data, known in ((diabetes, _DIABETES), (wine, _WINE)):
        for place, given in enumerate(data.feature_names):
            if given in known:
                iri = f"{_IRI}suggest/{_local(given)}"
                held.append(Held(known[given][0], iri, known[given][2], pl.Series(data.data[:, place])))
    sex = list(diabetes.feature_names).index("sex")
    held.append(Held("sex", f"{_IRI}suggest/sex", None, pl.Series(diabetes.data[:, sex]).cast(pl.Int64)))
    return held


def alter(column: Held, draw: random.Random, taken: set[str]) -> tuple[str, str, pl.Series]:
    """The kind of alteration, a name that no concept bears, and the cells that go with it."""
    for _ in range(200):
        kind = draw.choice(KINDS)
        cells, unit = column.cells, None
        if kind == "unit-suffixed":
            units = _OTHER_UNITS.get(column.unit or "")
            if units is None:
                continue
            unit, factor = draw.choice(units)
            cells = cells * factor
            words = _renamed(column.label, draw) if draw.random() < 0.5 else column.label.split()
        elif kind == "translated":
            translations = TRANSLATED[column.label]
            words = draw.choice(sorted(translations.items()))[1].split()
        elif kind == "abbreviated":
            words = [_abbreviated(word, draw) for word in column.label.replace("/", " ").split() if word != "of"]
        else:
            words = _renamed(column.label, draw)
        name = _styled(words, draw)
        bare = _plain(name)
        if unit is not None:
            name = draw.choice([f"{name}_{unit}", f"{name} ({unit})", f"{name} [{unit}]"])
        if bare not in taken:
            return kind, name, cells
    # Every drawing is a label: put what a table's author puts before a name.
    return "renamed", f"col_{column.label}", column.cells


def _renamed(label: str, draw: random.Random) -> list[str]:
    words: list[str] = []
    rest = label
    while rest:
        known = next((part for part in sorted(RENAMED, key=len, reverse=True) if rest.startswith(part)), None)
        if known is None:
            word, _, rest = rest.partition(" ")
            words.append(word)
        else:
            words += draw.choice(RENAMED[known]).split()
            rest = rest[len(known) :].lstrip()
    if len(words) > 1 and draw.random() < 0.5:
        words = [*words[1:], words[0]]
    if draw.random() < 0.2:
        words = [draw.choice(["pat", "lab", "val", "x"]), *words]
    return words


def _abbreviated(word: str, draw: random.Random) -> str:
    if len(word) <= 4:
        return word[: draw.choice([2, 3])] if len(word) > 3 else word
    how = draw.choice(["cut", "vowels", "both"])
    if how == "cut":
        return word[: draw.choice([3, 4, 5])]
    short = word[0] + re.sub("[aeiou]", "", word[1:])
    return short if how == "vowels" else short[:4]


def _styled(words: Sequence[str], draw: random.Random) -> str:
    how = draw.choice(["snake", "camel", "upper", "kebab", "plain"])
    if how == "camel":
        return words[0].lower() + "".join(word[:1].upper() + word[1:] for word in words[1:])
    joined = {"snake": "_", "upper": "_", "kebab": "-", "plain": " "}[how].join(words)
    return joined.upper() if how == "upper" else joined


def _plain(text: str) -> str:
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", unicodedata.normalize("NFKC", text))
    return " ".join(re.findall(r"[^\W_]+", apart.casefold()))


def _words_of(concept: object) -> tuple[str, ...]:
    labels, synonyms = getattr(concept, "labels", {}), getattr(concept, "synonyms", ())
    return (*labels.values(), *synonyms)


def _turtle(label: str, synonyms: Sequence[str], unit: str, ends: tuple[float, float], *, local: str) -> str:
    other = "".join(f' ; skos:altLabel "{synonym}"@en' for synonym in synonyms)
    return (
        f's:{local} a skos:Concept ; skos:prefLabel "{label}"@en{other} ; lepton:datatype xsd:decimal ;'
        f' lepton:unit "{unit}" ; lepton:plausibleMinimum {ends[0]} ; lepton:plausibleMaximum {ends[1]} .'
    )


def _local(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _share(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits) if hits else 0.0
