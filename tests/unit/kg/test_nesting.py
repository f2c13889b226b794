"""Documents that would overflow a parser's stack are refused before any parser sees them, and no others."""

from __future__ import annotations

import pytest

from lepton_core.errors import OntologyError
from lepton_kg.nesting import MAX_NESTING
from lepton_kg.rdf import parse_quads

XML = '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:e="urn:e:">\n'
#: Far more levels than the parser's stack holds.
DEEP = 100_000


def parse(format: str, text: str) -> int:
    return len(parse_quads(text.encode(), format=format, source="s"))


def jsonld(levels: int) -> str:
    """Objects within objects; the innermost says one thing."""
    return '{"@id":"urn:a","urn:p":' * (levels - 1) + '{"@id":"urn:z"}' + "}" * (levels - 1)


def rdfxml(nodes: int) -> str:
    return XML + "<rdf:Description><e:p>\n" * nodes + "</e:p></rdf:Description>" * nodes + "</rdf:RDF>"


def quoted(levels: int) -> str:
    return "<urn:a> <urn:p> " + "<<( <urn:a> <urn:p> " * levels + "<urn:z>" + " )>>" * levels + " ."


@pytest.mark.parametrize(
    ("format", "text", "where"),
    [
        ("jsonld", "\n\n" + jsonld(DEEP), f"s, line 3, column {23 * MAX_NESTING + 1}"),
        ("jsonld", '{"@context": ' + "[" * DEEP + "]" * DEEP + "}", "s, line 1, column 113"),
        ("jsonld", '"\\"' + "[{" * DEEP, "does not parse"),
        ("rdfxml", rdfxml(DEEP), "s, line 51, column 18"),
        ("turtle", "# <<\n" + quoted(DEEP), "s, line 2, column 17"),
        ("turtle", "@prefix e: <urn:e:> . e:a\\' e:b\\\" " + quoted(DEEP), "quoted triples"),
        ("ntriples", quoted(DEEP), "s, line 1, column 17"),
        ("nquads", quoted(1), "s, line 1, column 17"),
        ("turtle", "<urn:a> <urn:p> '" + "\\'" * DEEP + quoted(DEEP), "does not parse"),
    ],
    ids=["objects", "lists", "string", "elements", "after-comment", "after-escapes", "triples", "one", "in-string"],
)
def test_a_document_that_nests_too_deeply_is_refused_at_its_place(format: str, text: str, where: str) -> None:
    with pytest.raises(OntologyError) as refused:
        parse(format, text)
    assert where in str(refused.value)
    assert refused.value.expected
    assert refused.value.got


def test_what_nests_as_deeply_as_is_allowed_is_read() -> None:
    assert parse("jsonld", jsonld(MAX_NESTING)) == MAX_NESTING - 1
    assert parse("rdfxml", rdfxml((MAX_NESTING - 1) // 2)) == (MAX_NESTING - 1) // 2
    # Lists may be as long, and collections of Turtle as deep, as blank nodes allow: their parser does not recurse.
    assert parse("turtle", "<urn:a> <urn:p> " + "(" * 500 + ")" * 500 + " .") == 999


def test_brackets_in_strings_and_addresses_and_comments_do_not_count() -> None:
    many = "[{<<" * DEEP
    assert parse("jsonld", f'[{{"@id": "urn:a", "urn:p": ["{many}\\"{many}", "\\\\"]}}]') == 2
    for literal in (f'"{many}"', f"'{many}'", f'"""{many}"\n{many}"""', f"'''{many}\\'{many}'''"):
        assert parse("turtle", f"<urn:a#b> <urn:p> {literal} . # {many}\n<urn:a> <urn:p> 1 .") == 2
