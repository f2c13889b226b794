import polars as pl
import pytest

from lepton_kg.mapping import Source
from lepton_kg.ontology import parse_ontology
from lepton_kg.suggest import ACCEPT_SCORE, ColumnProfile, profile_columns, suggest

T = "https://example.org/t/"
ONTOLOGY_TEXT = """
@prefix : <https://example.org/t/> .
@prefix lepton: <https://w3id.org/lepton/kg#> .
@prefix skos: <http://www.w3.org/2004/02/skos/core#> .
@prefix xsd: <http://www.w3.org/2001/XMLSchema#> .
:radius a skos:Concept ; skos:prefLabel "mean radius"@en, "平均半径"@zh ; skos:altLabel "mittlerer Radius"@de ;
    lepton:datatype xsd:decimal ; lepton:unit "mm" ; lepton:plausibleMinimum 5 ; lepton:plausibleMaximum 30 .
:area a skos:Concept ; skos:prefLabel "mean area"@en ; lepton:datatype xsd:decimal ; lepton:unit "mm2" ;
    lepton:plausibleMinimum 0 ; lepton:plausibleMaximum 3000 .
:size a skos:Concept ; skos:prefLabel "size"@en .
:diagnosis a skos:Concept ; skos:prefLabel "diagnosis"@en ; lepton:datatype xsd:string ; lepton:valueSet :values .
:values a skos:Collection ; skos:member :malignant, :benign .
:malignant a skos:Concept ; skos:prefLabel "malignant"@en, "bösartig"@de ; skos:notation "M" .
:benign a skos:Concept ; skos:prefLabel "benign"@en, "gutartig"@de ; skos:notation "B" .
"""
ONTOLOGY = parse_ontology(ONTOLOGY_TEXT.encode(), format="turtle", source="test")


def best(name, **profile):
    (found,) = suggest(ONTOLOGY, [ColumnProfile(name, **{"dtype": "number", **profile})], T)
    return found.candidates[0] if found.candidates else None


@pytest.mark.parametrize(
    "name", ["Mean Radius", "MEAN_RADIUS", "meanRadius", "mittlerer-radius", "平均半径", "mean_radius_um"]
)
def test_a_label_in_any_language_and_spelling_is_found_first(name):
    found = best(name)
    assert found.concept == T + "radius"
    assert found.score >= 0.9


def test_a_likely_name_beats_an_unlikely_one_and_nonsense_gives_nothing():
    assert best("radius").concept == T + "radius"
    assert best("avg area").concept == T + "area"
    assert best("zzqxj") is None


def test_a_unit_in_the_name_speaks_for_its_kind_of_quantity():
    (found,) = suggest(ONTOLOGY, [ColumnProfile("mean (mm²)", "number")], T)
    assert found.unit == "mm²"
    assert found.candidates[0].concept == T + "area"
    assert any("unit of area" in reason for reason in found.candidates[0].reasons)
    radius = [candidate for candidate in found.candidates if candidate.concept == T + "radius"]
    assert not radius or radius[0].score < found.candidates[0].score


def test_values_outside_the_plausible_range_lower_the_score():
    inside = best("mean radius", minimum=6.0, maximum=28.0)
    outside = best("mean radius", minimum=600.0, maximum=2800.0)
    in_its_unit = best("mean radius um", minimum=6000.0, maximum=28000.0)
    assert inside.score > outside.score
    assert in_its_unit.score > outside.score


def test_codes_of_a_value_set_are_evidence_without_any_help_from_the_name():
    assert best("zzqxj", dtype="text", distinct_values=("bösartig", "gutartig")).concept == T + "diagnosis"
    assert best("result", dtype="text", distinct_values=("B", "M", "?")).concept == T + "diagnosis"


def test_groupings_and_values_are_never_proposed():
    shown = {
        c.concept
        for s in suggest(ONTOLOGY, [ColumnProfile(n, "number") for n in ("size", "benign")], T)
        for c in s.candidates
    }
    assert not shown & {T + "size", T + "benign", T + "malignant"}


def test_another_vocabulary_has_no_candidates():
    assert suggest(ONTOLOGY, [ColumnProfile("mean radius", "number")], "https://elsewhere.example/")[0].candidates == ()


def test_profiles_read_numbers_and_codes_from_any_column():
    frame = pl.DataFrame({"r": ["1,5", " 2 ", "NA", "3"], "d": ["M", "B", "M", None], "i": [1, 2, 3, 4]})
    source = Source.model_validate({"kind": "csv", "path": "x", "csv": {"delimiter": ";", "decimal": ","}})
    radius, diagnosis, number = profile_columns(frame, source)
    assert (radius.dtype, radius.minimum, radius.maximum) == ("number", 1.5, 3.0)
    assert (diagnosis.dtype, diagnosis.distinct_values, diagnosis.minimum) == ("text", ("B", "M"), None)
    assert (number.dtype, number.maximum) == ("number", 4.0)


def heart_ontology():
    """Concepts of a cardiology table, on which the suggester is tuned; no column of the benchmark is among them."""
    rows = [
        ("resting systolic blood pressure", "mm[Hg]", 60, 260),
        ("resting diastolic blood pressure", "mm[Hg]", 30, 160),
        ("serum cholesterol", "mmol/L", 1, 20),
        ("high density lipoprotein cholesterol", "mmol/L", 0.2, 5),
        ("maximum heart rate", "/min", 50, 250),
        ("resting heart rate", "/min", 30, 200),
        ("ejection fraction", "%", 5, 90),
        ("left ventricular mass", "g", 40, 600),
        ("troponin", "ng/L", 0, 100000),
        ("creatinine", "umol/L", 10, 2000),
        ("duration of exercise", "min", 0, 60),
        ("waist circumference", "cm", 40, 200),
    ]
    parts = [
        f':c{number} a skos:Concept ; skos:prefLabel "{label}"@en ; lepton:unit "{unit}" ;'
        f" lepton:datatype xsd:decimal ; lepton:plausibleMinimum {low}e0 ; lepton:plausibleMaximum {high}e0 ."
        for number, (label, unit, low, high) in enumerate(rows)
    ]
    start = ONTOLOGY_TEXT.split(":radius", maxsplit=1)[0]
    text = start + "\n".join(parts)
    return parse_ontology(text.encode(), format="turtle", source="heart"), [label for label, *_ in rows]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("chol", "serum cholesterol"),
        ("hdl_chol", "high density lipoprotein cholesterol"),
        ("max_hr", "maximum heart rate"),
        ("rest_hr", "resting heart rate"),
        ("rest_sbp", "resting systolic blood pressure"),
        ("diast-bp", "resting diastolic blood pressure"),
        ("ejectFrac", "ejection fraction"),
        ("EF (%)", "ejection fraction"),
        ("lv_mass_g", "left ventricular mass"),
        ("trop", "troponin"),
        ("crea", "creatinine"),
        ("exercise_dur_min", "duration of exercise"),
        ("créatinine", "creatinine"),
        ("waist_circ", "waist circumference"),
    ],
)
def test_the_abbreviations_of_a_cardiology_table_are_understood(name, label):
    ontology, labels = heart_ontology()
    (found,) = suggest(ontology, [ColumnProfile(name, "number")])
    best = found.candidates[0]
    assert labels[int(best.concept.rpartition("c")[2])] == label, found
    assert best.reasons


def test_reasons_name_the_language_the_synonym_and_the_abbreviation():
    assert best("平均半径").reasons[0] == "name equals the label (zh) '平均半径'"
    assert best("mittlerer_radius").reasons[0] == "name equals the synonym 'mittlerer radius'"
    ontology, _ = heart_ontology()
    (found,) = suggest(ontology, [ColumnProfile("max_hr", "number")])
    assert found.candidates[0].reasons[0] == "name abbreviates the label (en) 'maximum heart rate'"


def test_a_name_that_only_abbreviates_is_not_enough_to_be_accepted_at_a_glance():
    ontology, _ = heart_ontology()
    for name in ("chol", "trop", "max_hr"):
        (found,) = suggest(ontology, [ColumnProfile(name, "number")])
        assert found.candidates[0].score < ACCEPT_SCORE
