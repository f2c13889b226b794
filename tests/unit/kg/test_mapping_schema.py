"""The published JSON Schema and the parser accept and refuse the same documents."""

from __future__ import annotations

import copy

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_core.errors import LeptonError
from lepton_kg.mapping import Mapping, fingerprint, parse_mapping
from lepton_kg.mapping_schema import mapping_json_schema
from tests.property.budget import examples

CHECK = jsonschema.Draft202012Validator(mapping_json_schema(), format_checker=jsonschema.FormatChecker())
SCHEMA = {"g": "text", "s": "text"}
FULL = {
    "format": 1,
    "ontology": "a" * 64,
    "vocabulary": "https://example.org/t/",
    "source": {"kind": "csv", "path": "d.csv", "csv": {"delimiter": ";", "encoding": "cp1252", "decimal": ","}},
    "subject": {"column": "pid", "unique": True},
    "columns": [
        {
            "column": "g",
            "concept": "glucose",
            "unit": "mg/dL",
            "conversion": {"a": 0.0555, "b": 0},
            "missing": ["-9", "NA"],
            "predicate": "broad",
            "justification": "read",
            "score": 0.5,
            "status": "approved",
            "approver": "Ada",
            "date": "2025-01-31",
        },
        {"column": "s", "concept": "sex", "codes": {"1": "male", "2": "female"}},
        {"column": "b", "concept": "born", "date_format": "YYYY-MM-DD"},
    ],
    "source_schema": SCHEMA,
    "schema_fingerprint": fingerprint(SCHEMA),
    "meanings": {"https://example.org/t/glucose": "glucose"},
    "signature": {"identity": "b" * 64, "signature": "c" * 128},
}
#: Values that stand in for others; none makes a rule between rows fail, which no schema can say.
VALUES = [None, "", "x", 1, 0, -3, 0.25, "0.25", 1.5, True, "true", [], {}, ["x"], {"a": "b"}, "2025-02-30", "a" * 64]
VALUES += ["1e3", "1_0", "approved", "exact", "csv", "sql", "sqlite", "parquet", ".", ",", '"', "utf-8", "YYYYMMDD"]


def places(document, path=()):
    """Every place in the document, as the keys that lead there."""
    yield path
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in items:
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))
        else:
            yield (*path, key)


#: Free maps are not changed: the fingerprint would not hold.
PLACES = [path for path in places(FULL) if path and path[0] not in {"source_schema", "schema_fingerprint"}]


def changed(path, how, value):
    document = copy.deepcopy(FULL)
    part = document
    for key in path[:-1]:
        part = part[key]
    if how == "drop":
        del part[path[-1]]
    elif how == "add" and isinstance(part, dict):
        part["colour"] = value
    else:
        part[path[-1]] = value
    return document


def accepted(document):
    try:
        parse_mapping(yaml.safe_dump(document, allow_unicode=True), source="m")
    except LeptonError:
        return False
    return True


def beyond_a_schema(document):
    """What only the parser can see: two rows of one column or concept, and codes that are missing as well."""
    columns = document.get("columns")
    rows = [row for row in columns if isinstance(row, dict)] if isinstance(columns, list) else []
    for key in ("column", "concept"):
        known = [str(row.get(key)) for row in rows]
        if len(set(known)) != len(known):
            return True
    return False


@settings(max_examples=examples(60, 2000))
@given(st.sampled_from(PLACES), st.sampled_from(["drop", "add", "set"]), st.sampled_from(VALUES))
def test_the_schema_accepts_what_the_parser_accepts_and_nothing_else(path, how, value):
    document = changed(path, how, value)
    if beyond_a_schema(document):
        return
    problems = [error.message[:200] for error in CHECK.iter_errors(document)]
    assert accepted(document) == (not problems), (path, how, value, problems)


@pytest.mark.parametrize(
    "source",
    [
        {"kind": "parquet", "path": "d.parquet"},
        {"kind": "sqlite", "path": "d.db", "table": "t"},
        {"kind": "sql", "url": "postgresql+psycopg://reader@db/ward", "table": "t", "password_file": "secret"},
        {"kind": "sql", "url": "postgresql://db/ward"},
        {"kind": "sql", "url": "postgresql://reader:secret@db/ward", "table": "t"},
        {"kind": "sql", "url": "postgresql://reader:sec/ret@db/ward", "table": "t"},
        {"kind": "sql", "url": "postgresql://reader@db/ward?password=secret", "table": "t"},
        {"kind": "sql", "url": "mysql+pymysql://reader@db:3306/ward?charset=utf8mb4&passwd=secret", "table": "t"},
        {"kind": "sql", "url": "mysql+pymysql://reader@db:3306/ward?ssl_ca=ca.pem&read_timeout=9", "table": "t"},
        {"kind": "parquet", "path": "d.parquet", "csv": {}},
        {"kind": "csv", "path": "d.csv", "csv": {"delimiter": ".", "decimal": ","}},
        {"kind": "csv", "path": "d.csv", "csv": {"decimal": ","}},
        {"kind": "csv", "path": "d.csv", "password_file": "x"},
    ],
)
def test_the_schema_and_the_parser_agree_about_every_kind_of_source(source):
    document = {"ontology": "a" * 64, "source": source, "columns": [{"column": "a", "concept": "b"}]}
    assert accepted(document) == CHECK.is_valid(document)
    assert "secret" not in str(source.get("url")) or not accepted(document)


def test_the_whole_document_is_accepted_by_both_and_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(mapping_json_schema())
    assert accepted(FULL)
    assert CHECK.is_valid(FULL)
    assert set(mapping_json_schema()["properties"]) == set(Mapping.model_fields)
    assert mapping_json_schema()["additionalProperties"] is False
