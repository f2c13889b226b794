"""RDF in any syntax as one canonical byte string, so that equal meaning has one SHA-256.

Canonical form: RDFC-1.0 (W3C Recommendation, 2024), then the N-Quads lines sorted. The algorithm is exponential on
hostile blank nodes, so their number and an upper bound of the work are checked before it starts.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import pyoxigraph as ox

from lepton_core.errors import OntologyError

#: Largest document that is parsed.
MAX_BYTES = 64 * 2**20
#: Most blank nodes of a document; ontologies name what they mean.
MAX_BLANK_NODES = 1_000
#: Most estimated steps of the canonicalisation; at most some 3 s on one core, measured on rings and random graphs.
MAX_CANONICAL_WORK = 10_000_000

#: Names of the accepted syntaxes, as in file endings and on the wire.
FORMATS: Mapping[str, ox.RdfFormat] = MappingProxyType(
    {
        "turtle": ox.RdfFormat.TURTLE,
        "ttl": ox.RdfFormat.TURTLE,
        "nquads": ox.RdfFormat.N_QUADS,
        "nq": ox.RdfFormat.N_QUADS,
        "ntriples": ox.RdfFormat.N_TRIPLES,
        "nt": ox.RdfFormat.N_TRIPLES,
        "rdfxml": ox.RdfFormat.RDF_XML,
        "rdf": ox.RdfFormat.RDF_XML,
        "owl": ox.RdfFormat.RDF_XML,
        "xml": ox.RdfFormat.RDF_XML,
        "jsonld": ox.RdfFormat.JSON_LD,
    }
)

_BlankEdges = dict[ox.BlankNode, list[tuple[str, str, ox.BlankNode]]]


def parse_quads(data: bytes, *, format: str, source: str) -> tuple[ox.Quad, ...]:
    """The statements of the document; nothing is fetched from anywhere.

    `source` names the document in errors.

    Raises:
        OntologyError: unknown syntax, too large, not parseable (with the line where the parser knows it), named
            graphs, quoted triples, XML entities, or too many blank nodes.
    """
    syntax = FORMATS.get(format.lower())
    if syntax is None:
        raise OntologyError(
            "an RDF syntax that is not known", where=source, expected=", ".join(FORMATS), got=format[:80]
        )
    if len(data) > MAX_BYTES:
        raise OntologyError(
            "an ontology this large is refused",
            where=source,
            expected=f"at most {MAX_BYTES} bytes",
            got=f"{len(data)} bytes",
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OntologyError(
            "an ontology that is not UTF-8", where=source, got=f"an invalid byte at offset {error.start}"
        ) from None
    if syntax == ox.RdfFormat.RDF_XML and "<!ENTITY" in text:
        # Entities expand exponentially; no parser limit stands between a small file and a full memory.
        raise OntologyError(
            "XML entity declarations are refused", where=source, hint="save the ontology as Turtle or N-Triples"
        )
    try:
        quads = tuple(ox.parse(text, syntax, without_named_graphs=True))
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.lineno else ""
        raise OntologyError(
            "an ontology that does not parse",
            where=source + line,
            expected=f"valid {syntax.name} without named graphs",
            got=str(error.msg)[:300],
        ) from None
    if any(isinstance(quad.object, ox.Triple) for quad in quads):
        raise OntologyError("quoted triples are refused", where=source, expected="RDF 1.1 terms")
    _require_few_blank_nodes(quads, source)
    return quads


def canonicalize(quads: Iterable[ox.Quad], *, source: str) -> bytes:
    """The canonical N-Quads: UTF-8, sorted lines, blank nodes named by RDFC-1.0 with SHA-256.

    Raises:
        OntologyError: blank nodes so entangled that the algorithm might not end in reasonable time.
    """
    known = tuple(dict.fromkeys(quads))
    work = _canonical_work(known)
    if work > MAX_CANONICAL_WORK:
        raise OntologyError(
            "blank nodes too entangled to be named canonically",
            where=source,
            expected=f"at most {MAX_CANONICAL_WORK} steps",
            got="more",
            hint="give IRIs to nodes that cannot be told apart by their own properties",
        )
    dataset = ox.Dataset(known)
    dataset.canonicalize(ox.CanonicalizationAlgorithm.RDFC_1_0)
    serialized = ox.serialize(dataset, format=ox.RdfFormat.N_QUADS)
    if serialized is None:  # Only when an output is passed; mypy cannot know.
        raise OntologyError("the ontology could not be serialized", where=source)
    return b"".join(sorted(serialized.splitlines(keepends=True)))


def _require_few_blank_nodes(quads: Iterable[ox.Quad], source: str) -> None:
    count = len({term for quad in quads for term in (quad.subject, quad.object) if isinstance(term, ox.BlankNode)})
    if count > MAX_BLANK_NODES:
        raise OntologyError(
            "an ontology with this many blank nodes is refused",
            where=source,
            expected=f"at most {MAX_BLANK_NODES}",
            got=str(count),
            hint="give IRIs to the nodes; canonical naming of blank nodes is exponential in the worst case",
        )


def _canonical_work(quads: Iterable[ox.Quad]) -> float:
    """An upper bound, in arbitrary steps, of RDFC-1.0's Hash N-Degree Quads over these statements.

    Only nodes that share their first-degree hash are explored (section 4.4.3, step 5). Within one connected
    component of such nodes the algorithm tries every order of each group of alike neighbours, walks the component
    from each node, and copies its issuer at each step: size cubed times the product of the groups' factorials.
    """
    signatures: defaultdict[ox.BlankNode, list[tuple[str, str, str]]] = defaultdict(list)
    edges: _BlankEdges = defaultdict(list)
    for quad in quads:
        head, tail, predicate = quad.subject, quad.object, str(quad.predicate)
        if isinstance(head, ox.BlankNode):
            seen = ("self" if tail == head else "blank") if isinstance(tail, ox.BlankNode) else str(tail)
            signatures[head].append(("s", predicate, seen))
        if isinstance(tail, ox.BlankNode):
            seen = ("self" if tail == head else "blank") if isinstance(head, ox.BlankNode) else str(head)
            signatures[tail].append(("o", predicate, seen))
        if isinstance(head, ox.BlankNode) and isinstance(tail, ox.BlankNode) and head != tail:
            edges[head].append(("s", predicate, tail))
            edges[tail].append(("o", predicate, head))
    alike = {node: tuple(sorted(lines)) for node, lines in signatures.items()}
    counts = Counter(alike.values())
    ambiguous = {node for node, signature in alike.items() if counts[signature] > 1}
    work = 0.0
    while ambiguous:
        component = _component(ambiguous.pop(), edges, ambiguous)
        orders = 0.0
        for node in component:
            groups = Counter(
                (position, predicate, alike[near]) for position, predicate, near in edges[node] if near in component
            )
            orders += sum(math.lgamma(size + 1) for size in groups.values())
        work += math.exp(min(orders + 3 * math.log(len(component)), 700.0))
    return work


def _component(start: ox.BlankNode, edges: _BlankEdges, remaining: set[ox.BlankNode]) -> set[ox.BlankNode]:
    """The nodes reachable from `start` through `remaining`, which loses them."""
    component = {start}
    frontier = [start]
    while frontier:
        for _, _, near in edges[frontier.pop()]:
            if near in remaining:
                remaining.discard(near)
                component.add(near)
                frontier.append(near)
    return component
