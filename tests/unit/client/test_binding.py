"""Do an owner's rows become tensors only as its approved mapping says, and does a refusal tell no more than it may?"""

from __future__ import annotations

import datetime as dt
import io
import json
from pathlib import Path

import numpy as np
import pytest

from lepton_client.binding import Binding, told_of
from lepton_client.logs import open_log
from lepton_client.policy import Population
from lepton_client.refusals import leaving
from lepton_core.errors import DataError, FaultError, LeptonError, MappingError, MatchRefusal, OntologyError
from lepton_core.identity import IdentityKey
from lepton_core.ids import Digest
from lepton_core.ports import SystemRandomness
from lepton_kg.approval import approve
from lepton_kg.mapping import Subject, dump_mapping, parse_mapping
from tests.unit.client.clinics import ONTOLOGY, ROWS, VOCABULARY, make_clinic_job, write_clinic

POPULATION = Population(name="patients", mapping="mapping.yaml", declared_rows=60, epsilon=8.0, delta=1e-3)


KEY = IdentityKey.generate(SystemRandomness())


class Library:
    """Serves ontologies and counts how often it is asked."""

    def __init__(self, canonical: bytes = ONTOLOGY.canonical) -> None:
        self.canonical, self.asked = canonical, 0

    async def fetch(self, _: Digest) -> bytes:
        self.asked += 1
        return self.canonical


def make_binding(folder: Path, library: Library, log: io.StringIO | None = None) -> Binding:
    return Binding(folder, folder / "ontology", library.fetch, open_log(log or io.StringIO()), identity=KEY.public)


async def refusal(folder: Path, job=None, library: Library | None = None) -> LeptonError:
    with pytest.raises(LeptonError) as refused:
        await make_binding(folder, library or Library()).prepare(job or make_clinic_job(), POPULATION)
    return refused.value


async def test_rows_become_tensors_and_the_ontology_is_fetched_once(tmp_path) -> None:
    write_clinic(tmp_path)
    library, log = Library(), io.StringIO()
    first = await make_binding(tmp_path, library, log).prepare(make_clinic_job(), POPULATION)
    again = await make_binding(tmp_path, library).prepare(make_clinic_job(), POPULATION)
    assert library.asked == 1
    assert first.plan == again.plan
    assert first.features.shape == (ROWS, 2)
    assert first.features.dtype == np.float32
    assert set(np.unique(first.target)) == {0.0, 1.0}
    assert "features" not in repr(first)
    # Neither rows nor their number are in the log.
    (line,) = log.getvalue().splitlines()
    assert set(json.loads(line)) == {"event", "plan", "population", "level", "timestamp"}


async def test_subjects_are_read_for_jobs_that_protect_them_only(tmp_path) -> None:
    path = write_clinic(tmp_path, subject=Subject(column="fall"))
    job = make_clinic_job()
    for_subjects = job.model_copy(update={"privacy": job.privacy.model_copy(update={"unit": "subject"})})
    log = io.StringIO()
    prepared = await make_binding(tmp_path, Library(), log).prepare(for_subjects, POPULATION)
    assert np.array_equal(np.bincount(prepared.subjects), [3] * 20)
    assert (await make_binding(tmp_path, Library()).prepare(job, POPULATION)).subjects is None
    assert "without a subject" not in log.getvalue()
    # Nobody's rows are left out, and how many there are is told in the owner's own log alone.
    data = tmp_path / "data.csv"
    data.write_text(data.read_text().replace("P3;", ";"))
    prepared = await make_binding(tmp_path, Library(), log).prepare(for_subjects, POPULATION)
    assert (len(prepared.subjects), len(prepared.target), len(np.unique(prepared.subjects))) == (57, 57, 19)
    assert json.loads(log.getvalue().splitlines()[-1])["rows"] == 3
    # Without the column the job is refused, in words that name no column.
    path.write_text(path.read_text().replace("subject:\n  column: fall\n", ""))
    told = leaving(await refusal(tmp_path, for_subjects), for_subjects)
    assert (told.code, told.reason, told.subject) == ("refused.match", "MISSING_SUBJECT", "")


async def test_an_ontology_with_another_hash_is_not_believed(tmp_path) -> None:
    write_clinic(tmp_path)
    error = await refusal(tmp_path, library=Library(ONTOLOGY.canonical + b"<a:b> <a:c> <a:d> .\n"))
    assert isinstance(error, OntologyError)
    assert error.reason == "ONTOLOGY_MISMATCH"
    assert not (tmp_path / "ontology").exists()


async def test_the_number_of_rows_is_told_as_a_power_of_ten_and_only_where_the_policy_says_so(tmp_path) -> None:
    write_clinic(tmp_path)
    silent = await make_binding(tmp_path, Library()).prepare(make_clinic_job(), POPULATION)
    assert silent.coverage == ""
    open_policy = POPULATION.model_copy(update={"tell_coverage": True})
    told = await make_binding(tmp_path, Library()).prepare(make_clinic_job(), open_policy)
    assert told.coverage == "10+"


async def test_a_missing_concept_is_refused_by_its_name(tmp_path) -> None:
    write_clinic(tmp_path)
    job = make_clinic_job(features=("glucose", "pressure"))
    error = await refusal(tmp_path, job)
    told = leaving(error, job)
    assert (told.code, told.reason, told.subject) == ("refused.match", "MISSING_CONCEPT", VOCABULARY + "pressure")


async def test_a_mapping_for_another_ontology_version_is_refused(tmp_path) -> None:
    path = write_clinic(tmp_path)
    path.write_text(path.read_text().replace(ONTOLOGY.digest, "0" * 64))
    assert (await refusal(tmp_path)).reason == "ONTOLOGY_MISMATCH"


async def test_a_changed_source_needs_a_new_approval_and_its_columns_do_not_leave(tmp_path) -> None:
    write_clinic(tmp_path)
    data = tmp_path / "data.csv"
    data.write_text(data.read_text().replace("temp;", "temp;patientenname;", 1))
    error = await refusal(tmp_path)
    assert error.reason == "SCHEMA_CHANGED"
    assert "patientenname" not in str(leaving(error, make_clinic_job()))


async def test_an_ontology_that_the_mapping_was_not_made_for_is_neither_fetched_nor_kept(tmp_path) -> None:
    write_clinic(tmp_path)
    library = Library()
    job = make_clinic_job()
    other = job.model_copy(update={"task": job.task.model_copy(update={"ontology": "b" * 64})})
    assert (await refusal(tmp_path, other, library)).reason == "ONTOLOGY_MISMATCH"
    assert library.asked == 0
    assert not (tmp_path / "ontology").exists()


def sign(path: Path, key: IdentityKey, **changes: object) -> None:
    mapping = parse_mapping(path.read_text(), source="test").model_copy(update=changes)
    assert mapping.source_schema is not None
    given = {"schema": mapping.source_schema, "ontology": ONTOLOGY, "key": key}
    path.write_text(dump_mapping(approve(mapping, approver="Ada", date=dt.date(2026, 1, 1), **given)))


async def test_a_signed_mapping_serves_and_one_changed_or_signed_by_another_does_not(tmp_path) -> None:
    path = write_clinic(tmp_path)
    strict = POPULATION.model_copy(update={"signed_mapping": True})
    with pytest.raises(MatchRefusal) as refused:
        await make_binding(tmp_path, Library()).prepare(make_clinic_job(), strict)
    assert refused.value.reason == "UNSIGNED_MAPPING"

    sign(path, KEY, subject=Subject(column="befund"))
    prepared = await make_binding(tmp_path, Library()).prepare(make_clinic_job(), strict)
    assert prepared.subjects is None  # whose the rows are is read where the job protects subjects

    path.write_text(path.read_text().replace("krank: ill", "krank: well"))
    assert (await refusal(tmp_path)).reason == "BAD_SIGNATURE"
    sign(path, IdentityKey.generate(SystemRandomness()))
    error = await refusal(tmp_path)
    assert error.reason == "UNSIGNED_MAPPING"
    assert leaving(error, make_clinic_job()).subject == ""


@pytest.mark.parametrize(("broken", "kind"), [("data.csv", DataError), ("mapping.yaml", MappingError)])
async def test_a_missing_file_is_told_to_the_owner_and_not_to_the_coordinator(
    tmp_path, broken: str, kind: type
) -> None:
    write_clinic(tmp_path)
    (tmp_path / broken).unlink()
    error = await refusal(tmp_path)
    assert isinstance(error, kind)
    assert broken in str(error)
    told = leaving(error, make_clinic_job())
    assert told.subject == ""
    assert broken not in str(told)


def test_what_a_library_raises_is_named_and_never_quoted() -> None:
    secret = "Erika Mustermann, 1964"
    for error, kind in ((ValueError(secret), DataError), (PermissionError(secret), FaultError)):
        assert isinstance(told_of(error), kind)
        assert secret not in str(told_of(error))
    known = MatchRefusal("no column", reason="MISSING_CONCEPT")
    assert told_of(known) is known
