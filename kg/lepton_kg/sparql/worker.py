"""The process that runs queries, one after another: `python -m lepton_kg.sparql.worker`.

It reads a frame (four bytes of length, then JSON) from standard input and writes one to standard output: JSON, then
the result's bytes. It ends with its standard input, and is killed when a query takes too long, by its parent or, if
that is gone, by its own alarm.
"""

from __future__ import annotations

import json
import re
import resource
import signal
import struct
import sys
from collections import OrderedDict
from typing import Any, BinaryIO

import pyoxigraph as ox

from lepton_core.errors import FaultError, InputError, LeptonError
from lepton_kg.sparql.no_network import give_up_network
from lepton_kg.sparql.results import ResultLimits, write_results

#: Opened versions.
_MOST_STORES = 4
#: How long after its time a query ends by itself.
_GRACE_S = 5


def main() -> None:
    """Answer queries until the standard input ends."""
    memory = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    give_up_network()
    stores: OrderedDict[str, ox.Store] = OrderedDict()
    given, answers = sys.stdin.buffer, sys.stdout.buffer
    while (request := read_frame(given)) is not None:
        signal.alarm(int(request["seconds"]) + _GRACE_S)
        try:
            body = answer(request, stores)
            head: dict[str, Any] = {"error": None}
        except LeptonError as error:
            head, body = {"error": error.as_dict()}, b""
        signal.alarm(0)
        write_frame(answers, head, body)


def answer(request: dict[str, Any], stores: OrderedDict[str, ox.Store]) -> bytes:
    """The query's whole result.

    Raises:
        InputError: the query is none.
        RefusedError: the result is too large.
        FaultError: the version's store cannot be opened or read.
    """
    try:
        store = _store(request["path"], stores)
        # Whatever FROM says, it was found to name this version.
        results = store.query(request["query"], default_graph=ox.DefaultGraph(), named_graphs=[])
        return write_results(results, request["type"], ResultLimits(request["rows"], request["bytes"]))
    except SyntaxError as error:
        raise _malformed(str(error.msg)) from None
    except (OSError, RuntimeError, ValueError) as error:
        raise FaultError("a query that failed", where="query", got=str(error)[:300], reason="QUERY_FAILED") from None


def _malformed(told: str) -> InputError:
    """The store's own words, in which the place comes first and everything that could stand there follows."""
    found = re.match(r"error at (\d+):(\d+): expected (?:one of )?(.*)", told, re.DOTALL)
    return InputError(
        "a query that cannot be read",
        where=f"query, line {found[1]}, column {found[2]}" if found else "query",
        expected=found[3][:200] if found else "SPARQL 1.1",
        got="something else" if found else told[:300],
        reason="MALFORMED",
    )


def _store(path: str, stores: OrderedDict[str, ox.Store]) -> ox.Store:
    if path not in stores:
        try:
            stores[path] = ox.Store.read_only(path)
        except (OSError, ValueError, RuntimeError) as error:  # what is damaged is none of the first
            raise FaultError(
                "the index of an ontology is damaged", where=path, got=str(error)[:200], reason="NO_INDEX"
            ) from None
    stores.move_to_end(path)
    while len(stores) > _MOST_STORES:
        stores.popitem(last=False)
    return stores[path]


def read_frame(source: BinaryIO) -> dict[str, Any] | None:
    """The next request; None at the end."""
    head = source.read(4)
    if len(head) < 4:
        return None
    (length,) = struct.unpack(">I", head)
    found: dict[str, Any] = json.loads(source.read(length))
    return found


def write_frame(target: BinaryIO, head: dict[str, Any], body: bytes) -> None:
    """One answer: length and JSON of the head, length and bytes of the body."""
    text = json.dumps(head).encode()
    target.write(struct.pack(">II", len(text), len(body)) + text + body)
    target.flush()


if __name__ == "__main__":
    main()
