"""Views as JSON documents and back, by the fields' own types; unknown keys of a newer version are left out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from enum import Enum
from functools import cache
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from lepton_core.errors import FaultError

T = TypeVar("T")

_ENCODER = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), allow_nan=False)
#: What JSON takes as it is; most of a view's fields.
_SCALARS = frozenset({str, int, float, bool, type(None)})


def to_document(view: Any) -> str:
    """The frozen dataclass as one line of JSON; enums by value, nested views as objects."""
    return _ENCODER.encode(_plain(view))


def from_document(kind: type[T], text: str) -> T:
    """The view that `to_document` wrote; a field that the document lacks takes its default.

    Raises:
        FaultError: the document is not one of these views.
    """
    try:
        return cast("T", _builder(cast("Any", kind))(json.loads(text)))
    except (ValueError, KeyError, TypeError) as error:
        raise FaultError(
            f"a stored {kind.__name__} cannot be read",
            got=type(error).__name__,
            hint="the database was written by another version, or damaged; restore a backup",
        ) from None


def _plain(value: Any) -> Any:
    kind: Any = type(value)
    if kind in _SCALARS:
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if hasattr(kind, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in _names(kind)}
    return value


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


@cache
def _builder(kind: Any) -> Callable[[Any], Any]:
    """A function from plain JSON to a value of this type."""
    make: Any = kind
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        builders = {name: _builder(hints[name]) for name in _names(make)}
        return lambda plain: make(**{name: build(plain[name]) for name, build in builders.items() if name in plain})
    if get_origin(kind) is tuple:
        build = _builder(get_args(kind)[0])
        return lambda plain: tuple(build(item) for item in plain)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind
    if kind is float:
        return float
    return lambda plain: plain
