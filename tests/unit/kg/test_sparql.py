"""What a query may say, and how its results are written."""

import csv
import io
import json
import socket
import subprocess
import sys

import pyoxigraph as ox
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_core.errors import InputError, LeptonError, RefusedError
from lepton_kg.index import graph_iri
from lepton_kg.sparql import results
from lepton_kg.sparql.query import MAX_QUERY, Form, check_query, require_local
from lepton_kg.sparql.results import ResultLimits, write_results

LIMITS = ResultLimits(1_000, 2**20)
HASH = "ab" * 32
TERMS = [
    ox.NamedNode("http://a/b?c&d"),
    ox.BlankNode("b1"),
    ox.Literal('a "b", <c>\n\td\r'),
    ox.Literal("血糖", language="zh"),
    ox.Literal("1.5", datatype=ox.NamedNode("http://www.w3.org/2001/XMLSchema#decimal")),
    ox.Literal(""),
]


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("SELECT * { ?s ?p ?o }", Form.SELECT),
        ("# first\nPREFIX select: <http://x#> BASE <http://y/> ask { ?s ?p ?o }", Form.ASK),
        ("prefix : <http://x/> construct { ?s a ?o } where { ?s a ?o }", Form.CONSTRUCT),
        ("DESCRIBE <http://service/>", Form.DESCRIBE),
        ("SELECT ?service { ?service service:of 'SERVICE <x> {}' ; <http://a/SERVICE> ex:service }", Form.SELECT),
        ('SELECT * { ?s ?p """SERVICE <x> " {}""" } # SERVICE <x> {}', Form.SELECT),
        ("SELECT * { ?s ex:a\\'b ?o ; ex:from 1 . FILTER(?o<3&&?o>1) }", Form.SELECT),
    ],
)
def test_a_query_that_reads_is_told_by_its_form_whatever_it_names(text, form):
    checked = check_query(text)
    assert (checked.form, checked.text, checked.graphs) == (form, text, ())


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * { SERVICE <http://x/> { ?s ?p ?o } }",
        "SELECT * { service silent ?x { ?s ?p ?o } }",
        "SELECT * { ?s ?p ?o OPTIONAL{SERVICE<http://x/>{?s ?p ?o}} }",
        "SELECT * { ?s ex:a\\'b ?o . SERVICE <http://x/> { ?s ?p 'o' } }",
        "SELECT * { <http://a\\u0041#> ?p ?o . SERVICE <http://x/> { ?s ?p ?o } }",
        "SELECT * { ?s ex:a\\#b ?o . SERVICE <http://x/> { ?s ?p ?o } }",
        "SELECT * { ?s ?p 'a\\'' . SERVICE <http://x/> { ?s ?p 'o' } }",
        'SELECT * { ?s ?p """a""\\"""" . SERVICE <http://x/> { ?s ?p \'o\' } }',
        "SELECT * { FILTER(?a<?b)SERVICE<http://x/>{ ?s ?p ?o } FILTER(?c>?d) }",
        "SELECT * { ?s ?p ?o # ' \n . SERVICE <http://x/> { ?s ?p 'o' } }",
        "SELECT * { ?s ?p ?o # ' \r . SERVICE <http://x/> { ?s ?p 'o' } }",
    ],
)
def test_a_query_that_would_reach_outside_is_refused_however_it_is_written(text):
    with pytest.raises(RefusedError) as refused:
        check_query(text)
    assert refused.value.reason == "SERVICE"


@pytest.mark.parametrize("backslash", ["SELECT * { \\u0053ERVICE <http://x/> { ?s ?p ?o } }", "SELECT \\ * {}"])
def test_a_backslash_outside_of_strings_and_names_is_no_sparql(backslash):
    with pytest.raises(InputError) as refused:
        check_query(backslash)
    assert refused.value.where.startswith("query, line 1, column ")


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        ("INSERT DATA { <a:a> <b:b> 1 }", RefusedError, "UPDATE"),
        ("PREFIX a: <http://x/> DELETE WHERE { ?s ?p ?o }", RefusedError, "UPDATE"),
        ("load <http://x/>", RefusedError, "UPDATE"),
        ("SELECT * FROM NAMED <http://x/> { GRAPH ?g { ?s ?p ?o } }", RefusedError, "NAMED_GRAPH"),
        ("SELECT * { GRAPH ?g { ?s ?p ?o } }", RefusedError, "NAMED_GRAPH"),
        ("SELECT * FROM ex:graph { ?s ?p ?o }", RefusedError, "REMOTE_GRAPH"),
        ("", InputError, "MALFORMED"),
        ("PREFIX a:", InputError, "MALFORMED"),
        ("EXPLAIN SELECT", InputError, "MALFORMED"),
        pytest.param("SELECT * { } #" + "x" * MAX_QUERY, InputError, "TOO_LARGE", id="too large"),
    ],
)
def test_what_is_no_query_over_a_version_is_refused_with_its_reason(text, kind, reason):
    with pytest.raises(kind) as refused:
        check_query(text)
    assert refused.value.reason == reason


@given(st.text(max_size=60))
def test_any_text_is_a_query_or_a_typed_error(text):
    try:
        check_query("SELECT " + text)
    except LeptonError:
        return


def test_graphs_are_published_versions_and_one_of_them():
    assert check_query("ASK FROM <" + graph_iri(HASH) + "> { ?s ?p ?o }").graphs == (graph_iri(HASH),)
    assert require_local([graph_iri(HASH)] * 2) == HASH
    assert require_local([]) is None
    for graphs, reason in (
        (["http://127.0.0.1/x.ttl"], "REMOTE_GRAPH"),
        ([graph_iri("ab")], "REMOTE_GRAPH"),
        ([graph_iri(HASH), graph_iri("cd" * 32)], "SEVERAL_VERSIONS"),
    ):
        with pytest.raises(RefusedError) as refused:
            require_local(graphs)
        assert refused.value.reason == reason


def store_of(terms=TERMS):
    store = ox.Store()
    for index, term in enumerate(terms):
        store.add(ox.Quad(ox.NamedNode(f"urn:{index}"), ox.NamedNode("urn:p"), term))
    return store


SELECT = "SELECT ?s ?o ?none { ?s <urn:p> ?o } ORDER BY ?s"


def written(media_type, query=SELECT, limits=LIMITS):
    return write_results(store_of().query(query), media_type, limits).decode()


@pytest.mark.parametrize(
    ("media_type", "format"),
    [(results.JSON, ox.QueryResultsFormat.JSON), (results.XML, ox.QueryResultsFormat.XML)],
)
def test_rows_come_back_term_by_term_from_json_and_xml(media_type, format):
    read = ox.parse_query_results(written(media_type), format=format)
    assert [variable.value for variable in read.variables] == ["s", "o", "none"]
    rows = [(row["s"].value, row["o"], row["none"]) for row in read]
    assert rows == [(f"urn:{index}", term, None) for index, term in enumerate(TERMS)]


def test_rows_in_csv_are_plain_values_and_in_tsv_terms():
    rows = list(csv.reader(io.StringIO(written(results.CSV), newline="")))
    assert rows[0] == ["s", "o", "none"]
    plain = [f"_:{term.value}" if isinstance(term, ox.BlankNode) else term.value for term in TERMS]
    assert [row[1] for row in rows[1:]] == plain
    read = ox.parse_query_results(written(results.TSV), format=ox.QueryResultsFormat.TSV)
    assert [row["o"] for row in read] == TERMS


def test_truth_values_and_graphs_are_written_in_their_formats():
    ask = "ASK { ?s ?p ?o }"
    assert json.loads(written(results.JSON, ask)) == {"head": {}, "boolean": True}
    assert "<head/><boolean>true</boolean>" in written(results.XML, ask)
    assert written(results.CSV, ask) == written(results.TSV, ask) == "true\n"
    construct = "CONSTRUCT { ?o a ?s } { ?s <urn:p> ?o FILTER(ISIRI(?o)) }"
    for media_type, format in ((results.TURTLE, ox.RdfFormat.TURTLE), (results.N_TRIPLES, ox.RdfFormat.N_TRIPLES)):
        (quad,) = ox.parse(written(media_type, construct), format)
        assert quad.object == ox.NamedNode("urn:0")


def test_what_xml_cannot_hold_is_replaced_and_the_rest_stays():
    store = store_of([ox.Literal("a\x01b\ufffec")])
    document = write_results(store.query("SELECT ?o { ?s ?p ?o }"), results.XML, LIMITS)
    (row,) = ox.parse_query_results(document, format=ox.QueryResultsFormat.XML)
    assert row["o"].value == "a\ufffdb\ufffdc"


@pytest.mark.parametrize("limits", [ResultLimits(5, 2**20), ResultLimits(1_000, 200)])
@pytest.mark.parametrize("query", [SELECT, "CONSTRUCT { ?s <urn:p> ?o } { ?s <urn:p> ?o }"])
def test_a_result_over_a_limit_is_refused_and_never_cut_short(limits, query):
    media_type = results.JSON if query is SELECT else results.TURTLE
    with pytest.raises(RefusedError) as refused:
        written(media_type, query, limits)
    assert refused.value.reason == "RESULT_TOO_LARGE"
    assert written(media_type, query, ResultLimits(6, 2**20))


@pytest.mark.skipif(sys.platform != "linux", reason="the filter is Linux's")
def test_a_process_that_gave_up_the_network_reaches_nobody():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.setblocking(False)
        probe = (
            "import pyoxigraph, sys\nfrom lepton_kg.sparql.no_network import give_up_network\n"
            "assert give_up_network()\n"
            "query = 'SELECT * { SERVICE <http://127.0.0.1:%s/> { ?s ?p ?o } }' % sys.argv[1]\n"
            "try: list(pyoxigraph.Store().query(query))\n"
            "except OSError as error: print('refused', error)"
        )
        port = str(listening.getsockname()[1])
        ran = subprocess.run([sys.executable, "-c", probe, port], capture_output=True, text=True, check=True)
        assert ran.stdout.startswith("refused")
        with pytest.raises(BlockingIOError):
            listening.accept()
