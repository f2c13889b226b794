"""Query results in the formats of the recommendations, cut off by refusal where they grow over their limits.

SPARQL 1.1 Query Results JSON Format, XML Format, and CSV and TSV Formats (W3C Recommendations, 2013); graphs as
Turtle and N-Triples. A value that a limit cuts short would be a wrong answer, so there is none.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from xml.sax.saxutils import escape, quoteattr

import pyoxigraph as ox

from lepton_core.errors import RefusedError
from lepton_kg.statements import XSD, Term

JSON = "application/sparql-results+json"
XML = "application/sparql-results+xml"
CSV = "text/csv"
TSV = "text/tab-separated-values"
TURTLE = "text/turtle"
N_TRIPLES = "application/n-triples"

#: Media types of rows and truth values, and those they are asked for by as well; the first is the default.
ROW_TYPES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        JSON: (JSON, "application/json"),
        XML: (XML, "application/xml", "text/xml"),
        CSV: (CSV,),
        TSV: (TSV,),
    }
)
#: The same for graphs.
GRAPH_TYPES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {TURTLE: (TURTLE, "application/turtle", "application/x-turtle"), N_TRIPLES: (N_TRIPLES, "text/plain")}
)


@dataclass(frozen=True)
class ResultLimits:
    """How much a query may give."""

    rows: int
    bytes: int


class _Bounded:
    """Text that may not grow over the limits."""

    def __init__(self, limits: ResultLimits) -> None:
        self._limits = limits
        self._buffer = io.BytesIO()
        self._rows = 0

    def write(self, text: str) -> None:
        self._buffer.write(text.encode())
        if self._buffer.tell() > self._limits.bytes:
            raise _too_large("bytes", self._limits.bytes)

    def row(self) -> None:
        self._rows += 1
        if self._rows > self._limits.rows:
            raise _too_large("rows", self._limits.rows)

    def value(self) -> bytes:
        return self._buffer.getvalue()


def write_results(
    results: ox.QuerySolutions | ox.QueryBoolean | ox.QueryTriples, media_type: str, limits: ResultLimits
) -> bytes:
    """The whole result in that media type, one of `ROW_TYPES` or `GRAPH_TYPES` as the form of the query has it.

    Raises:
        RefusedError: more rows, statements or bytes than allowed (`reason` RESULT_TOO_LARGE).
    """
    out = _Bounded(limits)
    if isinstance(results, ox.QueryTriples):
        return _write_graph(results, media_type, out)
    if isinstance(results, ox.QueryBoolean):
        _write_truth(bool(results), media_type, out)
    else:
        names = [variable.value for variable in results.variables]
        _ROW_WRITERS[media_type](names, _rows(results, len(names), out), out)
    return out.value()


def _rows(results: ox.QuerySolutions, width: int, out: _Bounded) -> Iterator[list[Term | None]]:
    for solution in results:
        out.row()
        yield [solution[index] for index in range(width)]


def _write_graph(triples: ox.QueryTriples, media_type: str, out: _Bounded) -> bytes:
    kept = []
    for triple in dict.fromkeys(triples):
        out.row()
        out.write(f"{triple} .\n")
        kept.append(triple)
    if media_type == N_TRIPLES:
        return out.value()
    return ox.serialize(kept, format=ox.RdfFormat.TURTLE) or b""


def _write_truth(truth: bool, media_type: str, out: _Bounded) -> None:  # noqa: FBT001 - it is the result itself
    word = "true" if truth else "false"
    if media_type == JSON:
        out.write(f'{{"head":{{}},"boolean":{word}}}')
    elif media_type == XML:
        out.write(f"{_XML_HEAD}<head/><boolean>{word}</boolean></sparql>")
    else:  # the CSV and TSV formats leave truth values open; other stores write the word
        out.write(f"{word}\n")


def _write_json(names: Sequence[str], rows: Iterator[list[Term | None]], out: _Bounded) -> None:
    out.write(f'{{"head":{{"vars":{json.dumps(list(names))}}},"results":{{"bindings":[')
    comma = ""
    for row in rows:
        bound = {name: _json_term(term) for name, term in zip(names, row, strict=True) if term is not None}
        out.write(comma + json.dumps(bound, ensure_ascii=False, separators=(",", ":")))
        comma = ","
    out.write("]}}")


def _json_term(term: Term) -> dict[str, str]:
    if isinstance(term, ox.NamedNode):
        return {"type": "uri", "value": term.value}
    if isinstance(term, ox.BlankNode):
        return {"type": "bnode", "value": term.value}
    found = {"type": "literal", "value": term.value}
    if term.language:
        found["xml:lang"] = term.language
    elif term.datatype.value != XSD + "string":
        found["datatype"] = term.datatype.value
    return found


_XML_HEAD = '<?xml version="1.0"?>\n<sparql xmlns="http://www.w3.org/2005/sparql-results#">'
#: Characters that no XML 1.0 document can hold, even as references.
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


def _write_xml(names: Sequence[str], rows: Iterator[list[Term | None]], out: _Bounded) -> None:
    variables = "".join(f"<variable name={quoteattr(name)}/>" for name in names)
    out.write(f"{_XML_HEAD}<head>{variables}</head><results>")
    for row in rows:
        out.write("<result>")
        for name, term in zip(names, row, strict=True):
            if term is not None:
                out.write(f"<binding name={quoteattr(name)}>{_xml_term(term)}</binding>")
        out.write("</result>")
    out.write("</results></sparql>")


def _xml_term(term: Term) -> str:
    text = escape(_NOT_XML.sub("\ufffd", term.value), {"\r": "&#13;"})
    if isinstance(term, ox.NamedNode):
        return f"<uri>{text}</uri>"
    if isinstance(term, ox.BlankNode):
        return f"<bnode>{text}</bnode>"
    if term.language:
        return f"<literal xml:lang={quoteattr(term.language)}>{text}</literal>"
    kind = "" if term.datatype.value == XSD + "string" else f" datatype={quoteattr(term.datatype.value)}"
    return f"<literal{kind}>{text}</literal>"


def _write_csv(names: Sequence[str], rows: Iterator[list[Term | None]], out: _Bounded) -> None:
    out.write(",".join(names) + "\r\n")
    for row in rows:
        out.write(",".join(_csv_term(term) for term in row) + "\r\n")


def _csv_term(term: Term | None) -> str:
    if term is None:
        return ""
    text = f"_:{term.value}" if isinstance(term, ox.BlankNode) else term.value
    return '"' + text.replace('"', '""') + '"' if re.search(r'[",\r\n]', text) else text


def _write_tsv(names: Sequence[str], rows: Iterator[list[Term | None]], out: _Bounded) -> None:
    out.write("\t".join(f"?{name}" for name in names) + "\n")
    for row in rows:
        out.write("\t".join("" if term is None else str(term).replace("\t", "\\t") for term in row) + "\n")


_ROW_WRITERS: Mapping[str, Callable[[Sequence[str], Iterator[list[Term | None]], _Bounded], None]] = MappingProxyType(
    {JSON: _write_json, XML: _write_xml, CSV: _write_csv, TSV: _write_tsv}
)


def _too_large(what: str, limit: int) -> RefusedError:
    return RefusedError(
        f"a result of more {what} than allowed is refused",
        expected=f"at most {limit} {what}",
        got="more",
        hint="ask for less: LIMIT and OFFSET give a result in parts",
        reason="RESULT_TOO_LARGE",
    )
