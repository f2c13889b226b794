"""Links to the next model, as members are told them: small ones with the word that their round is over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from lepton_core.ids import Digest
from lepton_core.session import INLINE_BYTES, Published, RoundClosed
from lepton_server.jobs import events as ev
from lepton_server.store.port import Artifacts


def with_links(effects: Sequence[ev.Effect], artifacts: Artifacts) -> Iterator[ev.Effect]:
    """The effects, with the content of small links filled in; each is read once."""
    contents: dict[Digest, bytes] = {}
    for effect in effects:
        if not isinstance(effect, ev.Tell) or not isinstance(effect.command, RoundClosed):
            yield effect
            continue
        published = effect.command.published
        if published is None:
            yield effect
            continue
        digest = published.digest
        if digest not in contents:
            contents[digest] = artifacts.get(digest) if artifacts.size(digest) <= INLINE_BYTES else b""
        yield replace(effect, command=replace(effect.command, published=Published(digest, contents[digest])))
