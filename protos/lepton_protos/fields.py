"""How a frozen dataclass travels: its reader and its writer, made once from its type hints.

A dataclass and the message of the same name have the same field names. Each field becomes one small function, so that
a message costs a call a field; a round's messages have thousands of keys, digests and signatures. What a reader gives
has ids in their form, digests and keys of their length, finite numbers, known enum values, and no more elements than
`MOST_ELEMENTS`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import re
from collections.abc import Callable
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from lepton_core import ids
from lepton_core.errors import InputError
from lepton_core.secagg import messages as secagg
from lepton_core.secagg import terms

#: Most elements of a repeated field; a roster of 10,000 members with room to spare.
MOST_ELEMENTS = 65_536
#: Longest text; a longer one is an attack or a mistake.
LONGEST_TEXT = 65_536

_DIGEST_BYTES = 32
#: Exact sizes of byte fields; a field not named here may have any size.
_SIZES: dict[tuple[type, str], int] = {
    (secagg.Advert, "identity"): secagg.KEY_BYTES,
    (secagg.Advert, "mask_public"): secagg.KEY_BYTES,
    (secagg.Advert, "encryption_public"): secagg.KEY_BYTES,
    (secagg.Advert, "seed_commitment"): _DIGEST_BYTES,
    (secagg.Advert, "nonce"): _DIGEST_BYTES,
    (secagg.Advert, "signature"): secagg.SIGNATURE_BYTES,
    (secagg.Leaf, "advert_digest"): _DIGEST_BYTES,
    (secagg.Roster, "server_nonce"): _DIGEST_BYTES,
    (secagg.ShareDigests, "mask_key"): _DIGEST_BYTES,
    (secagg.ShareDigests, "self_seed"): _DIGEST_BYTES,
    (secagg.ShareMessage, "signature"): secagg.SIGNATURE_BYTES,
    (secagg.DealtShares, "signature"): secagg.SIGNATURE_BYTES,
    (secagg.Delivery, "model_digest"): _DIGEST_BYTES,
    (secagg.InputTrailer, "payload_digest"): _DIGEST_BYTES,
    (secagg.InputTrailer, "signature"): secagg.SIGNATURE_BYTES,
    (secagg.ConsistencySignature, "signature"): secagg.SIGNATURE_BYTES,
    (secagg.RevealedShare, "salt"): secagg.SALT_BYTES,
    (secagg.RevealedShare, "share"): secagg.SHARE_BYTES,
    (secagg.Unmasking, "signature"): secagg.SIGNATURE_BYTES,
    (terms.Setup, "nonce_commitment"): _DIGEST_BYTES,
}

#: Exact sizes by the annotation of a field; as `_CHECKS`, by `NewType`.
_BYTES: dict[Any, int] = {ids.MemberId: ids.MEMBER_ID_BYTES}
#: Checks by the annotation of a field. Keys are `NewType`s.
_CHECKS: dict[Any, Callable[[Any, str], Any]] = {
    ids.JobId: lambda value, _: ids.require_name(value, "job id"),
    ids.OwnerName: lambda value, _: ids.require_name(value, "owner name"),
    ids.Digest: ids.require_digest,
    ids.RoundNumber: lambda value, where: _at_least(value, 1, where),
    ids.ModelVersion: lambda value, where: _at_least(value, 0, where),
}

Reader = Callable[[Any], Any]
Writer = Callable[[Any, Any], None]


def reader_of(kind: Any) -> Reader:
    """From the message of a class to its value, every field checked; `InputError` names the field that is wrong."""
    made: Reader = _make_reader(kind)
    return made


def writer_of(kind: Any) -> Writer:
    """Fills the message of a class from its value."""
    made: Writer = _make_writer(kind)
    return made


def one_of_reader(name: str, union: Any, where: str) -> Reader:
    """Reads whichever of a union's messages is there; `InputError` if none is."""
    chosen = {
        _one_of_name(kind): (operator.attrgetter(_one_of_name(kind)), reader_of(kind)) for kind in get_args(union)
    }

    def read(message: Any) -> Any:
        found = message.WhichOneof(name)
        if found not in chosen:
            raise InputError(
                "a message without content", where=where, expected="one of the known kinds", got=str(found)
            )
        get, read_chosen = chosen[found]
        return read_chosen(get(message))

    return read


def write_one_of(message: Any, value: Any) -> None:
    """Fills the field that is named after the value's class."""
    kind: Any = type(value)
    name, write = _one_of_writer(kind)
    target = getattr(message, name)
    target.SetInParent()
    write(target, value)


@functools.cache
def _make_reader(kind: Any) -> Reader:
    hints = get_type_hints(kind)
    sizes = {field.name: _size_of(kind, field.name, hints[field.name]) for field in dataclasses.fields(kind)}
    if len(sizes) > 1 and None not in sizes.values():
        return _sized_fields_reader(kind, sizes)
    fields = tuple(_field_reader(kind, field.name, hints[field.name]) for field in dataclasses.fields(kind))

    def read(message: Any) -> Any:
        return kind(*[field(message) for field in fields])

    return read


@functools.cache
def _make_writer(kind: Any) -> Writer:
    hints = get_type_hints(kind)
    fields = tuple(_field_writer(field.name, hints[field.name]) for field in dataclasses.fields(kind))

    def write(message: Any, value: Any) -> None:
        for field in fields:
            field(message, value)

    return write


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, UnionType)


def _is_message(hint: Any) -> bool:
    """True for a dataclass that travels as a message; terms travel as their canonical bytes."""
    return dataclasses.is_dataclass(hint) and hint is not terms.Terms


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Enum)


def _field_reader(kind: Any, name: str, hint: Any) -> Reader:
    where = f"{kind.__name__}.{name}"
    get = operator.attrgetter(name)
    if _is_union(hint):
        if NoneType not in get_args(hint):
            return one_of_reader(name, hint, where)
        (present,) = (part for part in get_args(hint) if part is not NoneType)
        read_present = reader_of(present)
        return lambda message: read_present(get(message)) if message.HasField(name) else None
    if get_origin(hint) is tuple:
        return _repeated_reader(get, _item_reader(get_args(hint)[0], where, _SIZES.get((kind, name))), where)
    if _is_message(hint):
        return _part_reader(name, hint, where)
    size = _size_of(kind, name, hint)
    if size is not None:
        return _sized_reader(get, size, where)
    check = _item_reader(hint, where, None)
    if check is None:
        return get
    return lambda message: check(get(message))


def _size_of(kind: Any, name: str, hint: Any) -> int | None:
    """The exact size of a field that is bytes of one."""
    return _BYTES.get(hint, _SIZES.get((kind, name)) if hint is bytes else None)


def _sized_fields_reader(kind: Any, sizes: dict[str, Any]) -> Reader:
    """For an id with its keys, digests or signature: a roster has n of them, and a delivery up to 64^2."""
    get_all, expected = operator.attrgetter(*sizes), tuple(sizes.values())

    def read(message: Any) -> Any:
        values = get_all(message)
        if (*map(len, values),) != expected:
            for value, (name, size) in zip(values, sizes.items(), strict=True):
                _sized(value, size, f"{kind.__name__}.{name}")
        return kind(*values)

    return read


def _sized_reader(get: Reader, size: int, where: str) -> Reader:
    """Most fields of a round are keys, digests and signatures, in their thousands: one call each."""

    def read(message: Any) -> Any:
        value = get(message)
        return value if len(value) == size else _sized(value, size, where)

    return read


def _part_reader(name: str, hint: Any, where: str) -> Reader:
    get, read_part = operator.attrgetter(name), reader_of(hint)

    def read(message: Any) -> Any:
        if not message.HasField(name):
            raise InputError("a message lacks a part", where=where, expected=hint.__name__)
        return read_part(get(message))

    return read


def _repeated_reader(get: Reader, read_item: Reader | None, where: str) -> Reader:
    def read(message: Any) -> tuple[Any, ...]:
        repeated = get(message)
        if len(repeated) > MOST_ELEMENTS:
            raise InputError(
                "too many elements", where=where, expected=f"at most {MOST_ELEMENTS}", got=str(len(repeated))
            )
        return tuple(repeated) if read_item is None else tuple([read_item(item) for item in repeated])

    return read


def _field_writer(name: str, hint: Any) -> Writer:
    get = operator.attrgetter(name)
    if _is_union(hint) and NoneType not in get_args(hint):
        return lambda message, value: write_one_of(message, get(value))
    if get_origin(hint) is tuple:
        return _repeated_writer(name, get_args(hint)[0])
    if _is_union(hint) or _is_message(hint):

        def write_part(message: Any, value: Any) -> None:
            part = get(value)
            if part is not None:
                target = getattr(message, name)
                target.SetInParent()
                writer_of(type(part))(target, part)

        return write_part
    if hint is terms.Terms:
        return lambda message, value: setattr(message, name, get(value).encode())
    if _is_enum(hint):
        return lambda message, value: setattr(message, name, get(value).value)
    return lambda message, value: setattr(message, name, get(value))


def _is_flat(kind: Any) -> bool:
    """True for a class whose fields all travel as they are."""
    hints = get_type_hints(kind)
    return not any(
        _is_union(hint) or get_origin(hint) is tuple or dataclasses.is_dataclass(hint) or _is_enum(hint)
        for hint in (hints[field.name] for field in dataclasses.fields(kind))
    )


def _repeated_writer(name: str, item: Any) -> Writer:
    get = operator.attrgetter(name)
    if not _is_message(item):
        return lambda message, value: getattr(message, name).extend(get(value))
    if _is_flat(item):  # such an instance's dictionary is its fields; a stranger in it protobuf would refuse

        def write_flat(message: Any, value: Any) -> None:
            add = getattr(message, name).add
            for element in get(value):
                add(**vars(element))

        return write_flat
    write_item = writer_of(item)

    def write(message: Any, value: Any) -> None:
        add = getattr(message, name).add
        for element in get(value):
            write_item(add(), element)

    return write


@functools.cache
def _one_of_writer(kind: Any) -> tuple[str, Writer]:
    return _one_of_name(kind), writer_of(kind)


def _one_of_name(kind: Any) -> str:
    """`ShareMessage` stands in the field `share_message`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()


def _item_reader(hint: Any, where: str, size: int | None) -> Reader | None:
    """From one value of a message to Lepton's own, checked; None where protobuf has checked all there is."""
    check, size = _CHECKS.get(hint), _BYTES.get(hint, size)
    if check is not None:
        return lambda item: check(item, where)
    if hint is terms.Terms:
        return terms.decode_terms
    if _is_message(hint):
        return reader_of(hint)
    if _is_enum(hint):
        return lambda item: _member_of(hint, item, where)
    if hint is float:
        return lambda item: _finite(item, where)
    if hint is str:
        return lambda item: _printable(item, where)
    if size is not None:
        return lambda item: _sized(item, size, where)
    return None


def _finite(item: float, where: str) -> float:
    if not math.isfinite(item):
        raise InputError("a number that is not finite", where=where, expected="a finite number", got=repr(item))
    return item


def _printable(item: str, where: str) -> str:
    if len(item) > LONGEST_TEXT:
        raise InputError(
            "a text too long", where=where, expected=f"at most {LONGEST_TEXT}", got=f"{len(item)} characters"
        )
    if not (item.isprintable() or item.replace("\n", "").isprintable()):
        raise InputError("a text with control characters", where=where, expected="printable text")
    return item


def _member_of(kind: type[Enum], item: Any, where: str) -> Enum:
    try:
        return kind(item)
    except ValueError:
        known = ", ".join(str(member.value) for member in kind)
        raise InputError("an unknown value", where=where, expected=f"one of {known}", got=repr(item)[:80]) from None


def _sized(value: bytes, size: int, where: str) -> bytes:
    if len(value) != size:
        raise InputError("bytes of another length", where=where, expected=f"{size} bytes", got=f"{len(value)} bytes")
    return value


def _at_least(value: int, least: int, where: str) -> int:
    if value < least:
        raise InputError("a number too small", where=where, expected=f"at least {least}", got=str(value))
    return value
