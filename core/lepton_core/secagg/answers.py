"""A mapping that never changes and yet gains an entry in constant time: what each step of a large round collects."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from itertools import islice
from typing import Generic, TypeVar

from lepton_core.errors import ConflictError

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Answers(Mapping[K, V], Generic[K, V]):
    """The first `count` entries of a store that only ever grows; equal to a dictionary with the same entries.

    A phase is never changed, so each answer makes a new mapping; copying a dictionary each time would make a round of
    n members cost n^2. Here the newest mapping and its successor share one store. Adding to a mapping that has a
    successor already copies its entries, so every mapping stays as it was. Not for use by several threads at once.
    """

    __slots__ = ("_count", "_store")

    def __init__(self, store: dict[K, tuple[V, int]] | None = None, count: int = 0) -> None:
        #: Value and place by key, shared with successors; only places below `_count` belong to this mapping.
        self._store = {} if store is None else store
        self._count = count

    def with_entry(self, key: K, value: V) -> Answers[K, V]:
        """This mapping and one entry more; this one stays as it is.

        Raises:
            ConflictError: the key has an entry; nothing is ever replaced.
        """
        if key in self:
            raise ConflictError("an answer is recorded once", where="caller", got="a second entry for one key")
        newest = len(self._store) == self._count
        store = self._store if newest else dict(islice(self._store.items(), self._count))
        store[key] = (value, self._count)
        return Answers(store, self._count + 1)

    def __getitem__(self, key: K) -> V:
        value, place = self._store[key]
        if place >= self._count:
            raise KeyError(key)
        return value

    def __contains__(self, key: object) -> bool:
        return key in self._store and self._store[key][1] < self._count

    def __iter__(self) -> Iterator[K]:
        return islice(self._store, self._count)

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"Answers({dict(self)!r})"
