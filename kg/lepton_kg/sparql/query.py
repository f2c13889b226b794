"""What a query would do, found out before it runs: its form, its dataset, and whether it would reach outside.

The triple store follows SERVICE to any address, so a query is cut into the tokens of the grammar and refused if that
word is one of them; the worker that runs it cannot open sockets either (`no_network.py`). Source: SPARQL 1.1 Query
Language, W3C Recommendation 2013, section 19.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from lepton_core.errors import InputError, RefusedError
from lepton_core.ids import Digest
from lepton_kg.index import graph_iri

#: Longest query that is read, in characters; addresses in a browser's line end far below.
MAX_QUERY = 64 * 2**10

_UCHAR = r"\\u[0-9A-Fa-f]{4}|\\U[0-9A-Fa-f]{8}"
_LOCAL = r"(?:[^\W]|[.:\-·]|%[0-9A-Fa-f]{2}|\\[_~.\-!$&'()*+,;=/?#@%])*"
#: In the order in which they are tried. A backslash that fits none of them is no SPARQL.
_TOKEN = re.compile(
    rf"""
    (?P<space>\s+ | \#[^\n\r]*)
    | (?P<iri><(?:[^<>"{{}}|^`\\\x00-\x20]|{_UCHAR})*>)
    | (?P<string>\"\"\"(?:[^"\\]|\\.|\"(?!\"\"))*\"\"\" | '''(?:[^'\\]|\\.|'(?!''))*'''
        | "(?:[^"\\\n\r]|\\.)*" | '(?:[^'\\\n\r]|\\.)*')
    | (?P<variable>[?$]\w+)
    | (?P<language>@[A-Za-z0-9-]+)
    | (?P<name>(?:[^\W\d_][\w.\-·]*)?:{_LOCAL})
    | (?P<word>[^\W\d_]\w*)
    | (?P<number>[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)
    | (?P<other>[^\\])
    """,
    re.VERBOSE | re.DOTALL,
)
_UPDATES = frozenset({"ADD", "CLEAR", "COPY", "CREATE", "DELETE", "DROP", "INSERT", "LOAD", "MOVE", "WITH"})


class Form(StrEnum):
    """The four query forms, section 16."""

    SELECT = "SELECT"
    ASK = "ASK"
    CONSTRUCT = "CONSTRUCT"
    DESCRIBE = "DESCRIBE"

    @property
    def gives_graph(self) -> bool:
        """True if the result is a graph, False for rows or a truth value."""
        return self in {Form.CONSTRUCT, Form.DESCRIBE}


@dataclass(frozen=True)
class CheckedQuery:
    """A query that reads, and reads here."""

    text: str
    form: Form
    #: IRIs behind FROM.
    graphs: tuple[str, ...]


def check_query(text: str) -> CheckedQuery:
    """The query's form and dataset.

    Raises:
        InputError: too long, or no query.
        RefusedError: `reason` is SERVICE, UPDATE, NAMED_GRAPH or REMOTE_GRAPH.
    """
    if len(text) > MAX_QUERY:
        raise InputError(
            "a query this long is refused",
            expected=f"at most {MAX_QUERY} characters",
            got=f"{len(text)}",
            reason="TOO_LARGE",
        )
    tokens = list(_tokens(text))
    words = [value.upper() for kind, value in tokens if kind == "word"]
    if "SERVICE" in words:
        raise RefusedError(
            "federated queries are refused",
            where="SERVICE",
            expected="a query over the published ontologies alone",
            hint="ask the other endpoint yourself",
            reason="SERVICE",
        )
    form = _form(tokens)
    if "GRAPH" in words or "NAMED" in words:
        raise named_graph("GRAPH" if "GRAPH" in words else "FROM NAMED")
    return CheckedQuery(text, form, _graphs(tokens))


def named_graph(where: str) -> RefusedError:
    """The error for a query that looks for a graph by its name."""
    return RefusedError(
        "a version is one graph without a name within it",
        where=where,
        expected="patterns outside GRAPH; FROM, default-graph-uri or the path names the version",
        hint="leave GRAPH and FROM NAMED out",
        reason="NAMED_GRAPH",
    )


def require_local(graphs: Sequence[str]) -> Digest | None:
    """The one version that the graphs' IRIs name; None for no graphs.

    Raises:
        RefusedError: a graph of somewhere else (`reason` REMOTE_GRAPH), or of several versions (SEVERAL_VERSIONS).
    """
    prefix = graph_iri("")
    for graph in graphs:
        if not re.fullmatch(re.escape(prefix) + "[0-9a-f]{64}", graph):
            raise RefusedError(
                "graphs from elsewhere are refused, and nothing is fetched",
                where=graph[:300],
                expected=f"{prefix}HASH of a published version",
                hint="`lepton ontology list` shows the hashes; publish an ontology before it is asked about",
                reason="REMOTE_GRAPH",
            )
    digests = sorted({graph.removeprefix(prefix) for graph in graphs})
    if len(digests) > 1:
        raise RefusedError(
            "a query over several versions is refused",
            expected="graphs of one version",
            got=", ".join(digests)[:300],
            hint="compare versions with `lepton ontology diff`",
            reason="SEVERAL_VERSIONS",
        )
    return Digest(digests[0]) if digests else None


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    position = 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            line = text.count("\n", 0, position) + 1
            raise InputError(
                "a query that cannot be read",
                where=f"query, line {line}, column {position - text.rfind(chr(10), 0, position)}",
                expected="SPARQL 1.1",
                got=repr(text[position : position + 20]),
                reason="MALFORMED",
            )
        position = found.end()
        if found.lastgroup != "space":
            yield str(found.lastgroup), found.group()


def _form(tokens: Sequence[tuple[str, str]]) -> Form:
    """The first word behind the prologue."""
    words = iter(tokens)
    for kind, value in words:
        word = value.upper() if kind == "word" else value
        if word in {"BASE", "PREFIX"}:
            while kind != "iri":
                kind, _ = next(words, ("iri", ""))  # noqa: PLW2901 - the prologue's tokens are stepped over
        elif word in Form.__members__:
            return Form[word]
        elif word in _UPDATES:
            raise RefusedError(
                "updates are refused; versions never change",
                where=word,
                expected="SELECT, ASK, CONSTRUCT or DESCRIBE",
                hint="publish a new version with `lepton ontology publish`",
                reason="UPDATE",
            )
        else:
            break
    raise InputError(
        "a query that cannot be read",
        where="query",
        expected="SELECT, ASK, CONSTRUCT or DESCRIBE behind the prologue",
        got=" ".join(value for _, value in tokens[:5])[:100] or "nothing",
        reason="MALFORMED",
    )


def _graphs(tokens: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    graphs = []
    for index, (kind, value) in enumerate(tokens):
        if kind == "word" and value.upper() == "FROM":
            following = tokens[index + 1] if index + 1 < len(tokens) else ("", "nothing")
            if following[0] != "iri":
                raise RefusedError(
                    "a graph that is not named by its whole IRI",
                    where="FROM",
                    expected=f"<{graph_iri('HASH')}>",
                    got=following[1][:100],
                    reason="REMOTE_GRAPH",
                )
            graphs.append(following[1][1:-1])
    return tuple(graphs)
