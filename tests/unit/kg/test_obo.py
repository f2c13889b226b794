import pytest

from lepton_core.errors import OntologyError
from lepton_kg.ontology import parse_ontology
from lepton_kg.rdf import importer_of

OBO = r"""format-version: 1.4
data-version: releases/2025-01
ontology: hp
import: http://purl.obolibrary.org/obo/other.owl
idspace: EX https://example.org/ex/ "ours"

! a comment
[Term]
id: HP:0000118
name: Phenotypic abnormality

[Term]
id: HP:0001250
name: Seizure ! really
def: "A \"seizure\" {or fit}: uncontrolled." [HPO:probinson, url:"x"] {note="y"}
synonym: "Epileptic seizure" EXACT [HPO:x] ! trailing
synonym: "Fit" RELATED []
is_a: HP:0000118 {source="z"} ! Phenotypic abnormality
relationship: part_of EX:brain ! brain
property_value: https://w3id.org/lepton/kg#unit "1" xsd:string
property_value: https://w3id.org/lepton/kg#datatype http://www.w3.org/2001/XMLSchema#integer

[Term]
id: HP:0000009
name: Gone
is_obsolete: true
replaced_by: HP:0001250

[Typedef]
id: part_of
name: part of
"""
LIBRARY = "http://purl.obolibrary.org/obo/"
HP = LIBRARY + "HP_"


def parse(text=OBO):
    return parse_ontology(text.encode(), format="obo", source="hp.obo")


def test_terms_become_concepts_with_labels_codes_and_hierarchy():
    ontology = parse()
    seizure = ontology.concept(HP + "0001250")
    assert seizure.labels == {"": "Seizure ! really"}
    assert seizure.synonyms == ("Epileptic seizure", "Fit")
    assert seizure.broader == (HP + "0000118",)
    assert (seizure.unit, seizure.is_numeric) == ("1", True)
    assert ontology.resolve("HP:0001250") == (seizure,)
    assert len(ontology.concepts) == 3


@pytest.mark.parametrize(
    "statement",
    [
        f'<{HP}0001250> <http://www.w3.org/2004/02/skos/core#definition> "A \\"seizure\\" {{or fit}}: uncontrolled." .',
        f"<{HP}0001250> <http://purl.obolibrary.org/obo/part_of> <https://example.org/ex/brain> .",
        f"<{HP}0000009> <http://purl.obolibrary.org/obo/replaced_by> <{HP}0001250> .",
        f"<{LIBRARY}hp.owl> <http://www.w3.org/2002/07/owl#imports> <{LIBRARY}other.owl> .",
    ],
)
def test_what_has_no_place_in_skos_is_kept_and_imports_are_not_followed(statement):
    assert statement in parse().canonical.decode().splitlines()


def test_the_same_terms_have_one_digest_as_obo_and_as_what_it_became():
    ontology = parse()
    again = parse_ontology(ontology.canonical, format="nquads", source="x")
    assert again.digest == ontology.digest
    assert importer_of("obo") == "lepton-obo/1"
    assert importer_of("turtle").startswith("pyoxigraph/")


@pytest.mark.parametrize(
    ("change", "line", "column", "expected"),
    [
        (("is_a: HP:0000118 {", "is_a HP_0000118 {"), 18, 1, "tag: value"),
        (('synonym: "Fit"', "synonym: Fit"), 17, 10, "double quotes"),
        (('"Fit" RELATED', '"Fit" SIMILAR'), 17, 10, "EXACT"),
        (("is_a: HP:0000118 {", "is_a: HP:00 0118 {"), 18, 7, "identifier"),
        (("name: Gone", 'def: "x" []'), 24, 1, "a name"),
        (("[Typedef]", "[Type def]"), 29, 1, "stanza"),
        (("format-version: 1.4", "version: 1.4"), 1, 1, "format-version"),
        (("relationship: part_of EX:brain ! brain", "relationship: part_of"), 19, 15, "a relation and a value"),
    ],
)
def test_what_is_no_obo_is_refused_with_line_and_column(change, line, column, expected):
    assert change[0] in OBO
    with pytest.raises(OntologyError) as refused:
        parse(OBO.replace(*change))
    assert refused.value.where == f"hp.obo, line {line}, column {column}"
    assert expected in refused.value.expected
    assert refused.value.got


def test_a_term_that_is_narrower_than_itself_is_refused():
    with pytest.raises(OntologyError) as refused:
        parse(OBO.replace("name: Phenotypic abnormality\n", "name: Phenotypic abnormality\nis_a: HP:0001250\n"))
    assert "broader than itself" in refused.value.got
