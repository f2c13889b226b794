"""How deeply a document nests, found out before a parser walks it: parsers that recurse end their whole process.

A few thousand levels of JSON-LD objects or of quoted triples overflow the stack of the RDF parser's thread, which no
handler catches; RDF/XML of that depth takes time that grows with its square. Ontologies nest a dozen levels.
"""

from __future__ import annotations

import re

from lepton_core.errors import OntologyError

#: Most levels of a document; a thread's stack on the systems that give the smallest holds some hundred.
MAX_NESTING = 100
#: What to do where one is refused.
NO_QUOTED_TRIPLE = "give what is said about a statement a node of its own, or leave it out"

# Each pattern takes every character once: a string without an end goes to the document's, where parsers give up too.
#: Up to the next bracket outside strings.
_JSON = re.compile(r'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+"?)*+(?:([\[{])|([\]}])|\Z)', re.DOTALL)
#: What may hold two angle brackets that quote nothing, then those that do. RDF 1.1 Turtle, section 6.5.
_TURTLE = re.compile(
    r"""
    \"\"\"(?:[^"\\]++|\\.|\"(?!\"\"))*+(?:\"\"\")? | '''(?:[^'\\]++|\\.|'(?!''))*+(?:''')?
    | "(?:[^"\\\n\r]++|\\.)*+"? | '(?:[^'\\\n\r]++|\\.)*+'?
    | <[^<>"{}|^`\x00-\x20]*+>
    | \#[^\n\r]*+
    | \\.  # of a local name: the quote in ex:a\'b opens no string
    | (<<)
    """,
    re.VERBOSE | re.DOTALL,
)


def require_shallow_json(text: str, source: str) -> None:
    """Refuse a JSON document of more than `MAX_NESTING` levels.

    Raises:
        OntologyError: it is; says where.
    """
    if text.count("{") + text.count("[") <= MAX_NESTING:
        return
    depth = 0
    for token in _JSON.finditer(text):
        if token.lastindex == 1:
            depth += 1
            if depth > MAX_NESTING:
                raise too_deep(source, *_place(text, token.start(1)))
        elif token.lastindex == 2:
            depth -= 1


def require_no_quoted_triple(text: str, source: str) -> None:
    """Refuse quoted triples in Turtle, N-Triples and N-Quads, which RDF 1.1 does not have.

    Raises:
        OntologyError: there is one; says where.
    """
    if "<<" not in text:
        return
    for token in _TURTLE.finditer(text):
        if token.lastindex == 1:
            line, column = _place(text, token.start())
            raise OntologyError(
                "quoted triples are refused",
                where=f"{source}, line {line}, column {column}",
                expected="RDF 1.1 terms",
                got="<<",
                hint=NO_QUOTED_TRIPLE,
            )


def too_deep(source: str, line: int, column: int) -> OntologyError:
    """The error for a document that nests too deeply at that place, counted from 1."""
    return OntologyError(
        "an ontology that nests this deeply is refused",
        where=f"{source}, line {line}, column {column}",
        expected=f"at most {MAX_NESTING} levels",
        got="more",
        hint="write the nodes one beside the other, each under its IRI; Turtle and N-Triples do",
    )


def _place(text: str, at: int) -> tuple[int, int]:
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
