"""Every secret that can be reached from a value, through every field of everything that it holds.

Nothing is passed over: a type that the search does not know is an error, so that no new field can hide a secret.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from enum import Enum

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lepton_core.secagg.agreement import Secret

#: Holds nothing. The identity key lives longer than any round; it is the member's own.
LEAVES = (bytes, str, int, float, type(None), Enum, np.ndarray, Ed25519PrivateKey)


def reachable(value, seen=None):
    """Everything reachable from a value, each object once; of an exception also what its frames hold."""
    seen = {} if seen is None else seen
    if id(value) in seen:
        return
    seen[id(value)] = value  # kept alive, so that no other object gets its id
    yield value
    for part in _parts(value):
        yield from reachable(part, seen)


def _parts(value):
    if isinstance(value, LEAVES):
        return []
    if isinstance(value, BaseException):
        frames = []
        trace = value.__traceback__
        while trace is not None:
            frames += trace.tb_frame.f_locals.values()
            trace = trace.tb_next
        return [*vars(value).values(), *value.args, *frames, value.__context__, value.__cause__]
    if is_dataclass(value):
        return [getattr(value, field.name) for field in fields(value)]
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    if isinstance(value, tuple | list | AbstractSet):
        return list(value)
    if hasattr(value, "__dict__") or hasattr(type(value), "__slots__"):
        return [*getattr(value, "__dict__", {}).values(), *(getattr(value, n) for n in getattr(value, "__slots__", ()))]
    raise AssertionError(f"the search for secrets does not know {type(value)}")


def secrets_of(value):
    """The bytes of every `Secret` that can be reached."""
    return {found.value for found in reachable(value) if isinstance(found, Secret)}


def shows_any(value, secrets):
    """True if any reachable byte string, text or array contains one of the secrets."""
    for found in reachable(value):
        match found:
            case bytes():
                data = found
            case str():
                data = found.encode()
            case np.ndarray():
                data = found.tobytes()
            case _:
                continue
        if any(secret in data or secret.hex().encode() in data for secret in secrets):
            return True
    return False
