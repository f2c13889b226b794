"""The JSON Schema (2020-12) of a mapping document, for editors and for checks outside Lepton.

Made from the models that parse it. A YAML editor reads `-9`, `NO` or `007` as a number or a switch where Lepton reads
text, so text accepts every scalar; rules between keys that JSON Schema can say are added. What it cannot say is left to
`lepton mapping check`: concepts or columns mapped twice, codes that are also missing, the fingerprint, the units.
"""

from __future__ import annotations

from typing import Any

from lepton_kg.mapping import Mapping
from lepton_kg.written import CREDENTIAL_IN_URL, DATE, NUMBER, SCORE, SWITCH, WHOLE

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def mapping_json_schema() -> dict[str, Any]:
    """The schema; valid documents are those that `parse_mapping` reads, but for what is named above."""
    schema = Mapping.model_json_schema()
    loose: dict[str, Any] = _loosened(schema)
    parts = loose["$defs"]
    _column(parts["Column"])
    _source(parts["Source"])
    _csv(parts["CsvOptions"])
    for key in ("a", "b"):
        parts["Line"]["properties"][key] = _written("number", NUMBER, parts["Line"]["properties"][key])
    zero = {"type": "string", "pattern": r"^[+-]?0(\.0+)?([eE].*)?$"}
    parts["Line"]["properties"]["a"]["not"] = {"anyOf": [{"const": 0}, zero]}
    parts["Subject"]["properties"]["unique"] = _written("boolean", SWITCH, {})
    loose["properties"]["format"] = {"anyOf": [{"const": 1, "type": "number"}, {"type": "string", "pattern": WHOLE}]}
    loose["dependentRequired"] = {
        "source_schema": ["schema_fingerprint"],
        "schema_fingerprint": ["source_schema"],
    }
    return {"$schema": _DIALECT, **loose}


def _loosened(part: Any) -> Any:
    """Text as any scalar: an editor's reader has given some plain ones another type."""
    if isinstance(part, list):
        return [_loosened(item) for item in part]
    if not isinstance(part, dict):
        return part
    made = {key: _loosened(value) for key, value in part.items()}
    if made.get("type") == "string" and "pattern" not in made:
        made["type"] = ["string", "number", "boolean"]
    if made.get("type") == "array":
        made.pop("prefixItems", None)
    return made


def _written(kind: str, pattern: str, like: dict[str, Any]) -> dict[str, Any]:
    ends: dict[str, Any] = {key: like[key] for key in ("minimum", "maximum", "default", "title") if key in like}
    bounds = {key: ends.pop(key) for key in ("minimum", "maximum") if key in ends}
    return {**ends, "anyOf": [{"type": kind, **bounds}, {"type": "string", "pattern": pattern}]}


def _or_none(part: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [part, {"type": "null"}], "default": None}


def _given(key: str) -> dict[str, Any]:
    """The key is there and says something."""
    return {"required": [key], "properties": {key: {"not": {"type": "null"}}}}


def _column(part: dict[str, Any]) -> None:
    score = {"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "string", "pattern": SCORE}]}
    part["properties"]["score"] = _or_none(score)
    part["properties"]["date"] = _or_none({"type": "string", "pattern": DATE, "format": "date"})
    codes = {"required": ["codes"], "properties": {"codes": {"minProperties": 1}}}
    measured = {"anyOf": [_given("unit"), _given("conversion")]}
    part["allOf"] = [
        {
            "if": {"required": ["status"], "properties": {"status": {"const": "approved"}}},
            "then": {"allOf": [_given("approver"), _given("date")]},
        },
        {"not": {"allOf": [measured, codes]}},
        {"not": {"allOf": [measured, _given("date_format")]}},
        {"not": {"allOf": [codes, _given("date_format")]}},
    ]


def _source(part: dict[str, Any]) -> None:
    def when(kinds: list[str], given: list[str], absent: list[str]) -> dict[str, Any]:
        rules = [*(_given(key) for key in given), *({"not": _given(key)} for key in absent)]
        return {"if": {"properties": {"kind": {"enum": kinds}}}, "then": {"allOf": rules}}

    part["properties"]["url"]["not"] = {"type": "string", "pattern": CREDENTIAL_IN_URL}
    part["allOf"] = [
        when(["csv"], ["path"], ["url", "password_file", "table"]),
        when(["parquet"], ["path"], ["url", "password_file", "table", "csv"]),
        when(["sqlite"], ["path", "table"], ["url", "password_file", "csv"]),
        when(["sql"], ["url", "table"], ["path", "csv"]),
    ]


def _csv(part: dict[str, Any]) -> None:
    delimiter = part["properties"]["delimiter"]
    delimiter |= {"type": ["string", "integer"], "pattern": r"^[\x00-\x7f]$", "minimum": 0, "maximum": 9}
    delimiter["not"] = {"enum": ['"', "\r", "\n"]}
    comma = {"properties": {"decimal": {"const": ","}}, "required": ["decimal"]}
    dot = {"properties": {"delimiter": {"const": "."}}, "required": ["delimiter"]}
    part["allOf"] = [
        {"if": comma, "then": {"properties": {"delimiter": {"not": {"const": ","}}}, "required": ["delimiter"]}},
        {"if": dot, "then": comma},
    ]
