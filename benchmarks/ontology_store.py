"""The store of ontology versions: loading a million statements, a two-hop join, and the closure of a hierarchy."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyoxigraph as ox

from lepton_core.ids import Digest, digest_of
from lepton_core.ports import SystemClock
from lepton_kg.catalogue import MemoryCatalogue
from lepton_kg.index import OntologyIndex
from lepton_kg.service import Knowledge
from lepton_kg.store import FolderOntologyStore

_BASE = "https://example.org/o/"
_SKOS = "http://www.w3.org/2004/02/skos/core#"
#: Concepts below the one whose closure is asked for.
_DESCENDANTS = 1_000
#: Children of a concept in the hierarchy.
_FAN_OUT = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How large, and how often."""
    parser.add_argument("--triples", type=int, default=10**6, help="statements loaded")
    parser.add_argument("--published", type=int, default=10**5, help="statements of the ontology that is published")
    parser.add_argument("--loads", type=int, default=2, help="loads, of which the fastest counts")
    parser.add_argument("--queries", type=int, default=50, help="queries of a kind, of which the fastest counts")


def run(args: argparse.Namespace) -> dict[str, object]:
    """`load_s`, `join_ms`, `closure_sparql_ms` over the store on disk; `publish_s`, `closure_ms` of the whole service.

    The service answers its `Closure` call, and plans roll up, from the parsed version; SPARQL reads the store on disk.
    """
    with tempfile.TemporaryDirectory() as folder:
        document = Path(folder) / "ontology.nq"
        with document.open("w", encoding="ascii") as file:
            file.writelines(_statements(args.triples))
        digest = digest_of(document.read_bytes())
        seconds = []
        index = OntologyIndex(Path(folder) / "index")
        for _ in range(args.loads):
            index.remove(digest)
            start = time.perf_counter()
            index.build(digest, document)
            seconds.append(time.perf_counter() - start)
        store = index.open(digest)
        join = f"""
            SELECT ?label ?unit WHERE {{
                ?concept <{_SKOS}notation> "code-777" ; <{_SKOS}broader> ?above .
                ?above <{_SKOS}prefLabel> ?label ; <{_BASE}unit> ?unit .
            }}"""
        closure = f"SELECT ?below WHERE {{ ?below <{_SKOS}broader>+ <{_BASE}root> }}"

        def ask(query: str) -> Callable[[], int]:
            def count() -> int:
                rows = store.query(query)
                return len(list(rows)) if isinstance(rows, ox.QuerySolutions) else 0

            return count

        joined, join_ms = _fastest_ms(ask(join), args.queries)
        below, closure_sparql_ms = _fastest_ms(ask(closure), args.queries)
        if joined != 1 or below != _DESCENDANTS:
            raise AssertionError((joined, below))
    start = time.perf_counter()
    ask_service = _publish(args.published)
    publish_s = time.perf_counter() - start
    called, closure_ms = _fastest_ms(ask_service, args.queries)
    if called != _DESCENDANTS:
        raise AssertionError(called)
    return {
        "load_s": min(seconds),
        "join_ms": join_ms,
        "closure_ms": closure_ms,
        "closure_sparql_ms": closure_sparql_ms,
        "publish_s": publish_s,
        "triples": args.triples,
    }


def _publish(count: int) -> Callable[[], int]:
    """Publishes an ontology of `count` statements as a user would; asks for everything below the common root."""
    roots = (f'<{_BASE}{name}> a <{_SKOS}Concept> ; <{_SKOS}prefLabel> "{name}" .\n' for name in ("root", "top"))
    kinds = (f"<{_BASE}c{number}> a <{_SKOS}Concept> .\n" for number in range(count // 5))
    document = "".join((*roots, *kinds, *_statements(count // 5 * 4))).encode()
    with tempfile.TemporaryDirectory() as folder:
        knowledge = Knowledge(FolderOntologyStore(Path(folder)), MemoryCatalogue(), SystemClock())
        digest = Digest(knowledge.publish(document, format="turtle").digest)
    return lambda: len(knowledge.closure(digest, f"{_BASE}root", upward=False))


def _above(number: int) -> str:
    """The concept that a descendant of the common root is right below."""
    above = (number - _FAN_OUT) // _FAN_OUT
    return f"{_BASE}c{above}" if above >= 0 else f"{_BASE}root"


def _statements(count: int) -> Iterator[str]:
    """Concepts with label, code, unit and one broader concept; the first `_DESCENDANTS` lie below a common root."""
    written = 0
    number = 0
    while written < count:
        name = f"<{_BASE}c{number}>"
        inside = number < _DESCENDANTS
        parent = _above(number)
        if not inside:
            parent = f"{_BASE}c{_DESCENDANTS + (number - _DESCENDANTS) // _FAN_OUT}"
            parent = f"{_BASE}top" if number - _DESCENDANTS < _FAN_OUT else parent
        for line in (
            f'{name} <{_SKOS}prefLabel> "concept number {number}"@en .\n',
            f'{name} <{_SKOS}notation> "code-{number}" .\n',
            f'{name} <{_BASE}unit> "mmol/L" .\n',
            f"{name} <{_SKOS}broader> <{parent}> .\n",
        ):
            if written < count:
                yield line
                written += 1
        number += 1


def _fastest_ms(call: Callable[[], int], repeats: int) -> tuple[int, float]:
    """What the call gives, and its shortest time: the longer ones tell of what else the machine does."""
    found = call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return found, min(times) * 1_000
