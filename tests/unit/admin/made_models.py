"""The hospitals' job resolved, a model of it as files, and its ontology."""

from __future__ import annotations

import tomllib

from lepton_admin.models import Sidecar, sidecar_of
from lepton_core.ids import digest_of
from lepton_core.job import Job, JobFile
from lepton_core.settings import parse_settings
from lepton_kg.ontology import parse_ontology
from lepton_pool.models import architecture_of, initial_vector, model_layout
from lepton_pool.weights import encode_weights


def resolved(folder) -> Job:
    file = parse_settings(JobFile, tomllib.loads((folder / "job.toml").read_text("utf-8")), source="job.toml")
    document = file.document()
    document["privacy"]["noise_multiplier"] = 1.0
    return parse_settings(Job, document, source="test")


def write_model(data, folder):
    """A model with the job's first weights, as `lepton model export` would write it."""
    job = resolved(data)
    layout = model_layout(architecture_of(job))
    content = encode_weights(layout, initial_vector(architecture_of(job)))
    file = folder / "model.safetensors"
    file.write_bytes(content)
    sidecar = Sidecar(
        digest=digest_of(content),
        job_id="hospitals-1",
        version=0,
        parent="",
        accuracy=-1.0,
        auc=-1.0,
        epsilon=0.0,
        contributors=0,
        layout=tuple((place.name, place.shape) for place in layout.places),
        job=job,
    )
    sidecar_of(file).write_text(sidecar.model_dump_json(), encoding="utf-8")
    return file


def canonical_of(data):
    return lambda _digest: parse_ontology((data / "ontology.ttl").read_bytes(), format="turtle", source="t").canonical


def asks_more(model_file, **task) -> Job:
    """The model's job, as if its task had asked for more; the model itself knows nothing of it."""
    sidecar = Sidecar.model_validate_json(sidecar_of(model_file).read_text("utf-8"))
    document = sidecar.job.model_dump(mode="json")
    job = parse_settings(Job, document | {"task": document["task"] | task}, source="test")
    sidecar_of(model_file).write_text(sidecar.model_copy(update={"job": job}).model_dump_json(), encoding="utf-8")
    return job
