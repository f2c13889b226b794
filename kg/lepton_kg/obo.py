"""OBO flat files (format 1.2 and 1.4) as SKOS: terms become concepts, `is_a` becomes `skos:broader`.

What has no place in SKOS keeps a predicate of its own, so that nothing that was said is lost from the hash:
relationships and property values by the relation's IRI, obsolete terms by `owl:deprecated`. `import:` lines are
stated as `owl:imports` and never followed. Source: the OBO Flat File Format 1.4 specification, sections 2 to 5.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pyoxigraph as ox

from lepton_core.errors import OntologyError
from lepton_kg.statements import RDF_TYPE, SKOS, XSD, Node

#: Raised whenever the same file would become other statements.
OBO_IMPORTER = "lepton-obo/1"

_OBO = "http://purl.obolibrary.org/obo/"
_OWL = "http://www.w3.org/2002/07/owl#"
_TAG = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)[ \t]*:[ \t]*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"[ \t]*')
_ESCAPES = {"n": "\n", "t": "\t", "W": " ", "r": "\r"}
#: Tags whose value is text, in which `!` and braces are letters like others.
_FREE_TEXT = frozenset({"comment", "def", "name", "property_value", "synonym"})
_SYNONYM_SCOPES = frozenset({"EXACT", "BROAD", "NARROW", "RELATED"})
_LOCAL = re.compile(r"[A-Za-z0-9_.-]+")
_IRI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s<>\"{}|\\^`]+")


@dataclass(frozen=True)
class _Line:
    number: int
    #: Column of the value, from 1.
    column: int
    tag: str
    value: str


def parse_obo(text: str, *, source: str) -> tuple[ox.Quad, ...]:
    """The statements of an OBO document; `source` names it in errors.

    Raises:
        OntologyError: not OBO, with line and column.
    """
    return tuple(dict.fromkeys(_Reader(source).quads(text)))


class _Reader:
    def __init__(self, source: str) -> None:
        self._source = source
        #: Prefix -> IRI that its local names are appended to, from `idspace:` lines.
        self._spaces: dict[str, str] = {}

    def quads(self, text: str) -> Iterator[ox.Quad]:
        stanza, start = "", 1
        lines: list[_Line] = []
        for number, raw in enumerate(text.split("\n"), 1):
            line = raw.rstrip("\r").strip(" \t")
            if not line or line.startswith("!"):
                continue
            if line.startswith("["):
                yield from self._stanza(stanza, lines, start)
                if not re.fullmatch(r"\[[A-Za-z]+\]", line):
                    raise self._error(number, 1, "a stanza such as [Term]", line)
                stanza, lines, start = line[1:-1], [], number
                continue
            found = _TAG.match(line)
            if found is None:
                raise self._error(number, raw.index(line[0]) + 1, "a line of the form tag: value", line)
            value = line[found.end() :]
            if found[1] not in _FREE_TEXT:
                value = _bare(value)
            lines.append(_Line(number, raw.index(line[0]) + found.end() + 1, found[1], value))
        yield from self._stanza(stanza, lines, start)

    def _stanza(self, kind: str, lines: list[_Line], start: int) -> Iterator[ox.Quad]:
        if not kind:
            yield from self._header(lines)
        elif kind == "Term":
            identifiers = [line for line in lines if line.tag == "id"]
            if len(identifiers) != 1:
                raise self._error(start, 1, "one id in the stanza", f"{len(identifiers)}")
            yield from self._term(identifiers[0], lines)

    def _header(self, lines: list[_Line]) -> Iterator[ox.Quad]:
        if not any(line.tag == "format-version" for line in lines):
            raise self._error(1, 1, "a header with format-version", lines[0].tag if lines else "nothing")
        for line in lines:
            if line.tag == "idspace":
                words = line.value.split()
                if len(words) < 2 or not _IRI.fullmatch(words[1]):
                    raise self._error(line.number, line.column, "a prefix and an IRI", line.value)
                self._spaces[words[0]] = words[1]
        names = [line for line in lines if line.tag == "ontology"]
        if not names:
            return
        scheme = ox.NamedNode(_OBO + names[0].value + ".owl") if _LOCAL.fullmatch(names[0].value) else None
        if scheme is None:
            raise self._error(names[0].number, names[0].column, "a short name", names[0].value)
        yield ox.Quad(scheme, ox.NamedNode(RDF_TYPE), ox.NamedNode(SKOS + "ConceptScheme"))
        for line in lines:
            if line.tag == "data-version":
                yield ox.Quad(scheme, ox.NamedNode(_OWL + "versionInfo"), ox.Literal(_unescaped(line.value)))
            elif line.tag == "import":
                yield ox.Quad(scheme, ox.NamedNode(_OWL + "imports"), self._node(line, line.value))

    def _term(self, identifier: _Line, lines: list[_Line]) -> Iterator[ox.Quad]:
        term = self._node(identifier, identifier.value)
        yield ox.Quad(term, ox.NamedNode(RDF_TYPE), ox.NamedNode(SKOS + "Concept"))
        yield ox.Quad(term, ox.NamedNode(SKOS + "notation"), ox.Literal(_unescaped(identifier.value)))
        named = False
        for line in lines:
            if line.tag == "name":
                named = True
                yield ox.Quad(term, ox.NamedNode(SKOS + "prefLabel"), ox.Literal(_unescaped(line.value)))
            elif line.tag in {"def", "synonym"}:
                text, rest = self._quoted(line)
                scope = rest.split()[:1]
                if line.tag == "synonym" and scope and scope[0] not in _SYNONYM_SCOPES and not rest.startswith("["):
                    raise self._error(line.number, line.column, "EXACT, BROAD, NARROW or RELATED", rest)
                near = line.tag == "def" or scope[:1] != ["EXACT"]
                predicate = "definition" if line.tag == "def" else "hiddenLabel" if near else "altLabel"
                yield ox.Quad(term, ox.NamedNode(SKOS + predicate), ox.Literal(text))
            elif line.tag == "comment":
                yield ox.Quad(term, ox.NamedNode(SKOS + "note"), ox.Literal(_unescaped(line.value)))
            elif line.tag == "is_a":
                yield ox.Quad(term, ox.NamedNode(SKOS + "broader"), self._node(line, line.value))
            elif line.tag in {"alt_id", "replaced_by", "consider"}:
                yield ox.Quad(term, ox.NamedNode(_OBO + line.tag), self._node(line, line.value))
            elif line.tag in {"relationship", "property_value"}:
                yield ox.Quad(term, *self._property(line))
            elif line.tag == "is_obsolete" and line.value == "true":
                true = ox.Literal("true", datatype=ox.NamedNode(XSD + "boolean"))
                yield ox.Quad(term, ox.NamedNode(_OWL + "deprecated"), true)
        if not named:
            raise self._error(identifier.number, 1, "a name in the stanza", "none")

    def _property(self, line: _Line) -> tuple[ox.NamedNode, Node | ox.Literal]:
        words = line.value.split(None, 1)
        if len(words) != 2:
            raise self._error(line.number, line.column, "a relation and a value", line.value)
        relation = self._node(line, words[0])
        if not words[1].startswith('"'):
            return relation, self._node(line, words[1].split()[0])
        text, rest = self._quoted(line, words[1])
        if not rest:
            return relation, ox.Literal(text)
        datatype = self._node(line, rest.split()[0].replace("xsd:", XSD, 1))
        return relation, ox.Literal(text, datatype=datatype)

    def _quoted(self, line: _Line, value: str | None = None) -> tuple[str, str]:
        found = _QUOTED.match(line.value if value is None else value)
        if found is None:
            raise self._error(line.number, line.column, "text in double quotes", line.value)
        return _unescaped(found[1]), _bare(found.string[found.end() :])

    def _node(self, line: _Line, text: str) -> ox.NamedNode:
        """Section 5.9: a URL stands for itself, `GO:1` for GO_1 of its id space, a bare name for one of OBO's own."""
        text = _unescaped(text)
        if _IRI.fullmatch(text):
            return ox.NamedNode(text)
        prefix, colon, local = text.rpartition(":")
        if not _LOCAL.fullmatch(local) or (colon and not _LOCAL.fullmatch(prefix)):
            raise self._error(line.number, line.column, "an identifier such as HP:0001250", text)
        return ox.NamedNode((self._spaces.get(prefix) or f"{_OBO}{prefix}_") + local if colon else _OBO + local)

    def _error(self, number: int, column: int, expected: str, got: str) -> OntologyError:
        return OntologyError(
            "an ontology that does not parse",
            where=f"{self._source}, line {number}, column {column}",
            expected=expected,
            got=got[:300],
            hint="correct the line; OBO's flat file format 1.4 says what a line may be",
        )


def _bare(value: str) -> str:
    """The value without a trailing comment and qualifiers in braces."""
    value = value.partition(" !")[0].rstrip()
    return value.rpartition(" {")[0].rstrip() if value.endswith("}") else value


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), text)
