"""Settings documents: frozen models that refuse unknown keys with a suggestion and tell every problem at once."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from functools import cached_property
from types import UnionType
from typing import Annotated, Any, Self, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lepton_core.errors import SettingsError

#: A share of a whole, not none of it.
Fraction = Annotated[float, Field(gt=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]


class Settings(BaseModel):
    """Base of every settings model: immutable, no unknown keys, no silent coercion of infinities."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True, protected_namespaces=()
    )

    @cached_property
    def _hash(self) -> int:
        return hash((type(self), *(getattr(self, name) for name in type(self).model_fields)))

    def __hash__(self) -> int:
        """Of all fields, worked out once: policies and jobs are looked up by themselves several times a round."""
        return self._hash

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's, but without what was worked out from the original's fields (`cached_property`)."""
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - type(copied).model_fields.keys():
            del copied.__dict__[name]
        return copied


S = TypeVar("S", bound=Settings)


def parse_settings(model: type[S], document: Mapping[str, Any], *, source: str) -> S:
    """The document as a checked, frozen model.

    `source` names the file (or "command line") in errors.

    Raises:
        SettingsError: `problems` has one line a fault, each starting with its key path.
    """
    try:
        return model.model_validate(dict(document))
    except ValidationError as refused:
        problems = tuple(_problem(model, error) for error in _told(refused.errors(include_url=False)))
        raise SettingsError(
            f"{len(problems)} problem{'s' if len(problems) != 1 else ''} in {source}",
            problems=problems,
            where=source,
            hint="correct the keys named; `--help` and the documentation list them all",
        ) from None


def _told(errors: Sequence[Any]) -> list[Any]:
    """All but those that only follow from others: a list is no shorter for what is wrong with its items."""
    places = [error["loc"] for error in errors]
    return [
        error
        for error in errors
        if error["type"] != "too_short"
        or not any(place[: len(error["loc"])] == error["loc"] != place for place in places)
    ]


def _problem(model: type[BaseModel], error: Any) -> str:
    path = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        names = _keys_at(model, error["loc"][:-1])
        close = difflib.get_close_matches(str(error["loc"][-1]), names, n=1, cutoff=0.5)
        suggestion = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(sorted(names)) or 'none'}"
        return f"{path}: unknown key; {suggestion}"
    if error["type"] == "missing":
        return f"{path}: required, but missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    shown = error.get("input")
    got = f" (got {shown!r:.80})" if isinstance(shown, (str, int, float, bool)) else ""
    return f"{path or 'document'}: {message}{got}"


def _keys_at(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    current: Any = model
    for part in path:
        if isinstance(part, int):
            continue
        fields = getattr(_model_in(current), "model_fields", {})
        current = fields[part].annotation if part in fields else current
    found = _model_in(current)
    return list(found.model_fields) if found is not None else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The first settings model inside an annotation such as `tuple[Feature, ...]` or `Privacy | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType, tuple, list, dict) or get_args(annotation):
        for argument in get_args(annotation):
            found = _model_in(argument)
            if found is not None:
                return found
    return None
