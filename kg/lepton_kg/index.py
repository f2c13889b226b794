"""Published versions as triple stores on disk, one a version, so that SPARQL finds what it asks for at once.

A version never changes, so its store is written once, elsewhere, and renamed into its place; from then on any number
of processes open it for reading. Nothing in here is precious: a store that is missing or damaged is built again from
the canonical bytes.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyoxigraph as ox

from lepton_core.errors import FaultError
from lepton_core.ids import Digest, require_digest

_BUILDING = ".building-"
#: From this size on, some 200,000 statements, the second core is worth a second file.
_HALVED_BYTES = 16 * 2**20


def graph_iri(digest: str) -> str:
    """What FROM calls a version; in its own store its statements are the default graph."""
    return f"urn:lepton:ontology:{digest}"


class OntologyIndex:
    """`root/<digest>/` is the store of one version. Safe to use from several threads and processes.

    Raises:
        FaultError: the folder cannot be made.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        try:
            root.mkdir(parents=True, exist_ok=True)
            for left in root.glob(f"{_BUILDING}*"):  # of a process that was killed while it wrote
                shutil.rmtree(left, ignore_errors=True)
        except OSError as error:
            raise _fault("the index of ontologies cannot be used", error) from error

    def path(self, digest: Digest) -> Path:
        """Where a version's store lies."""
        return self._root / require_digest(digest, "ontology hash")

    def has(self, digest: Digest) -> bool:
        """True if the version's store is there."""
        return self.path(digest).is_dir()

    def build(self, digest: Digest, canonical: bytes | Path) -> Path:
        """The version's store, made of its canonical bytes, or of the file that holds them; kept if it is there.

        Raises:
            FaultError: the disk refuses; nothing is left behind.
        """
        place = self.path(digest)
        if place.is_dir():
            return place
        passing = self._root / f"{_BUILDING}{secrets.token_hex(8)}"
        try:
            store = ox.Store(str(passing))
            _load(store, canonical.read_bytes() if isinstance(canonical, Path) else canonical)
            store.flush()
            del store
            with _unless_there():
                passing.rename(place)
        except OSError as error:
            raise _fault("the index of an ontology could not be written", error) from error
        finally:
            shutil.rmtree(passing, ignore_errors=True)
        return place

    def remove(self, digest: Digest) -> None:
        """Forget the version's store; nothing happens if there is none."""
        place = self.path(digest)
        with contextlib.suppress(FileNotFoundError):
            passing = self._root / f"{_BUILDING}{secrets.token_hex(8)}"
            place.rename(passing)  # gone at once, whoever dies while its files are deleted
            shutil.rmtree(passing, ignore_errors=True)

    def open(self, digest: Digest) -> ox.Store:
        """The version's store, for reading.

        Raises:
            FaultError: it is not there, or damaged; `build` it again after `remove`.
        """
        place = self.path(digest)
        if not place.is_dir():
            raise FaultError("an ontology without its index", where=digest, reason="NO_INDEX")
        try:
            return ox.Store.read_only(str(place))
        except (OSError, ValueError, RuntimeError) as error:  # what is damaged is none of the first
            raise FaultError(
                "the index of an ontology is damaged", where=digest, got=str(error)[:200], reason="NO_INDEX"
            ) from None


def _load(store: ox.Store, canonical: bytes) -> None:
    """The statements, a large document's in two halves at once.

    Loading is sorting, on one core; two halves on two cores are there in half the time. More would only cost: every
    part is a file of its own to each later query.
    """

    def load(part: bytes) -> None:
        # Canonical N-Quads have no graph names, which makes them N-Triples; they were checked when they were made.
        # Into the default graph, which has half as many orders to sort as a named one.
        store.bulk_load(input=part, format=ox.RdfFormat.N_TRIPLES, lenient=True)

    if len(canonical) < _HALVED_BYTES:
        load(canonical)
        return
    middle = canonical.find(b"\n", len(canonical) // 2) + 1
    with ThreadPoolExecutor(2) as halves:
        for done in [halves.submit(load, part) for part in (canonical[:middle], canonical[middle:])]:
            done.result()


@contextlib.contextmanager
def _unless_there() -> Iterator[None]:
    """Somebody else who built the same store first is as good."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
            raise


def _fault(message: str, error: OSError) -> FaultError:
    return FaultError(message, where=str(error.filename or ""), got=error.strerror or str(error)[:200])
