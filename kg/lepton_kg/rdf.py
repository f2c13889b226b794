"""RDF in any syntax as one canonical byte string, so that equal meaning has one SHA-256.

Canonical form: RDFC-1.0 (W3C Recommendation, 2024), then the N-Quads lines sorted. The algorithm is exponential on
hostile blank nodes, so their number and an upper bound of the work are checked before it starts.
"""

from __future__ import annotations

import math
import xml.parsers.expat
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import pyoxigraph as ox

from lepton_core.errors import OntologyError
from lepton_kg.nesting import MAX_NESTING, NO_QUOTED_TRIPLE, require_no_quoted_triple, require_shallow_json, too_deep
from lepton_kg.obo import OBO_IMPORTER, parse_obo

#: Largest document that is parsed.
MAX_BYTES = 64 * 2**20
#: Longest literal or IRI in it, in characters; labels and definitions are far shorter.
MAX_TERM = 2**20
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
        "json": ox.RdfFormat.JSON_LD,
    }
)
OBO = "obo"
#: How a document's syntax is called in errors.
_TITLES = {ox.RdfFormat.JSON_LD: "JSON-LD with its contexts in it", ox.RdfFormat.RDF_XML: "RDF/XML"}
#: What a parser's message has in it -> what to do.
_HINTS: Mapping[str, str] = MappingProxyType(
    {
        "unbound prefix": "declare the prefix with xmlns:",
        "prefix": "declare the prefix at the top of the document, or correct it",
        "LoadDocumentCallback": "nothing is fetched: write the context into the document",
        "amed graphs": "leave the graph's name out: a version is one graph",
        "Invalid IRI": "escape what an IRI must not hold, such as blanks by %20",
        "undefined entity": "write the sign itself: entities are not read",
    }
)
#: Byte order marks of UTF-16.
_UTF16 = (b"\xff\xfe", b"\xfe\xff")

_BlankEdges = dict[ox.BlankNode, list[tuple[str, str, ox.BlankNode]]]


def importer_of(format: str) -> str:
    """Name and version of what turns a document of that syntax into statements; recorded with the version.

    The same statements come out of every RDF syntax by its specification; of other syntaxes the importer decides.
    """
    return OBO_IMPORTER if format.lower() == OBO else f"pyoxigraph/{ox.__version__}"


def parse_quads(data: bytes, *, format: str, source: str) -> tuple[ox.Quad, ...]:
    """The statements of the document; nothing is fetched from anywhere.

    `source` names the document in errors.

    Raises:
        OntologyError: unknown syntax, too large, not parseable (with line and column where the parser knows them),
            named graphs, quoted triples, XML entities, nesting too deep, a term too long, or too many blank nodes.
    """
    syntax = FORMATS.get(format.lower())
    if syntax is None and format.lower() != OBO:
        raise OntologyError(
            "a syntax of ontologies that is not known",
            where=source,
            expected=", ".join((*FORMATS, OBO)),
            got=format[:80],
        )
    require_size(len(data), source)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise OntologyError(
            "an ontology that is not UTF-8",
            where=f"{source}, line {line}",
            expected="UTF-8",
            got=f"an invalid byte at offset {error.start}",
            hint="save the document as UTF-8" + (", it looks like UTF-16" if data[:2] in _UTF16 else ""),
        ) from None
    quads = parse_obo(text, source=source) if syntax is None else _parse_rdf(text, syntax, source)
    _require_plain_terms(quads, source)
    return quads


def _parse_rdf(text: str, syntax: ox.RdfFormat, source: str) -> tuple[ox.Quad, ...]:
    if syntax == ox.RdfFormat.RDF_XML:
        _require_safe_xml(text, source)
    elif syntax == ox.RdfFormat.JSON_LD:
        require_shallow_json(text, source)
    else:
        require_no_quoted_triple(text, source)
    try:
        return tuple(ox.parse(text, syntax, without_named_graphs=True))
    except SyntaxError as error:
        raise _not_parsed(
            source,
            line=error.lineno,
            column=error.offset,
            expected=f"valid {_TITLES.get(syntax, syntax.name)}, without named graphs",
            got=str(error.msg),
        ) from None


def _require_safe_xml(text: str, source: str) -> None:
    """Well-formed with namespaces, of few levels, and without entity declarations.

    Entities expand exponentially (a billion laughs), so their declaration alone is refused. The RDF parser tells no
    line of a document that is not well formed; this one does.
    """
    parser = xml.parsers.expat.ParserCreate(encoding="utf-8", namespace_separator=" ")

    def refuse(*_declaration: object) -> None:
        raise OntologyError(
            "XML entity declarations are refused",
            where=f"{source}, line {parser.CurrentLineNumber}, column {parser.CurrentColumnNumber + 1}",
            expected="RDF/XML without <!ENTITY",
            got="an entity declaration",
            hint="save the ontology as Turtle or N-Triples",
        )

    depth = 0

    def enter(*_element: object) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_NESTING:
            raise too_deep(source, parser.CurrentLineNumber, parser.CurrentColumnNumber + 1)

    def leave(*_element: object) -> None:
        nonlocal depth
        depth -= 1

    parser.EntityDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = enter, leave
    try:
        parser.Parse(text.encode(), True)
    except xml.parsers.expat.ExpatError as error:
        raise _not_parsed(
            source,
            line=error.lineno,
            column=error.offset + 1,
            expected="well-formed XML with namespaces",
            got=xml.parsers.expat.ErrorString(error.code),
        ) from None


def _not_parsed(source: str, *, line: int | None, column: int | None, expected: str, got: str) -> OntologyError:
    place = f", line {line}" + (f", column {column}" if column else "") if line else ""
    return OntologyError(
        "an ontology that does not parse",
        where=source + place,
        expected=expected,
        got=got[:300],
        hint=next((hint for sign, hint in _HINTS.items() if sign in got), "correct the document at that place"),
    )


def require_size(size: int, source: str) -> None:
    """Refuse what is larger than `MAX_BYTES`.

    Raises:
        OntologyError: it is.
    """
    if size > MAX_BYTES:
        raise OntologyError(
            "an ontology this large is refused",
            where=source,
            expected=f"at most {MAX_BYTES} bytes",
            got=f"{size} bytes or more",
            hint="publish the part that the federation uses",
            reason="TOO_LARGE",
        )


def _require_plain_terms(quads: Iterable[ox.Quad], source: str) -> None:
    """RDF 1.1 terms of a sensible length, few of them blank."""
    blank = set()
    for quad in quads:
        for term in (quad.subject, quad.object):
            if isinstance(term, ox.BlankNode):
                blank.add(term)
            elif isinstance(term, ox.Triple):
                raise OntologyError(
                    "quoted triples are refused",
                    where=source,
                    expected="RDF 1.1 terms",
                    got=str(term)[:300],
                    hint=NO_QUOTED_TRIPLE,
                )
            elif len(term.value) > MAX_TERM:
                raise OntologyError(
                    "a term this long is refused",
                    where=f"{source}, a statement about {str(quad.subject)[:200]}",
                    expected=f"at most {MAX_TERM} characters",
                    got=f"{len(term.value)} characters",
                    hint="leave the text out, or name by its IRI where it is to be found",
                )
    if len(blank) > MAX_BLANK_NODES:
        raise OntologyError(
            "an ontology with this many blank nodes is refused",
            where=source,
            expected=f"at most {MAX_BLANK_NODES}",
            got=str(len(blank)),
            hint="give IRIs to the nodes; canonical naming of blank nodes is exponential in the worst case",
        )


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
