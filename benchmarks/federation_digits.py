"""The digits of the federation benchmark as files: ontology, every member's rows and mapping, hold-out, first weights.

Scikit-learn's digits. Of the federation benchmark: rows permuted by numpy's RandomState(7), the first 360 held out;
shard k of N holds the others k::N; a pixel's public plausible range is [-16, 16], so that scaling it to [-1, 1] divides
it by 16, exactly.
"""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lepton_kg.approval import approve
from lepton_kg.mapping import Column, Mapping, Source, dump_mapping
from lepton_kg.ontology import parse_ontology

VOCABULARY = "https://example.org/digits/"
PIXELS = tuple(f"pixel-{index}" for index in range(64))
DIGITS = tuple(f"digit-{index}" for index in range(10))
HELD_OUT = 360
_BRIGHTEST = 16

_PREFIXES = f"""@prefix : <{VOCABULARY}> .
@prefix lepton: <https://w3id.org/lepton/kg#> .
@prefix skos: <http://www.w3.org/2004/02/skos/core#> .
@prefix xsd: <http://www.w3.org/2001/XMLSchema#> .
"""


@dataclass(frozen=True)
class Digits:
    """Where the files lie."""

    folder: Path
    #: Turtle.
    ontology: Path
    #: Training rows of the largest shard.
    most_rows: int

    def mapping(self, shard: int) -> Path:
        """The approved mapping of a shard; its rows lie beside it."""
        return self.folder / f"shard-{shard}.yaml"

    @property
    def held_out(self) -> tuple[Path, Path]:
        """Source and mapping of the public evaluation set."""
        return self.folder / "held-out.csv", self.folder / "held-out.yaml"

    @property
    def weights(self) -> Path:
        """First weights, safetensors."""
        return self.folder / "weights.safetensors"


def write_digits(folder: Path, shards: int, hidden: Sequence[int]) -> Digits:
    """Write everything that members and researcher bring along."""
    rows = load_rows()
    rows = rows[np.random.RandomState(7).permutation(len(rows))]
    rest = rows[HELD_OUT:]
    parts = [rest[shard::shards] for shard in range(shards)]
    digits = write_parts(folder, rows[:HELD_OUT], parts, darkest=-_BRIGHTEST)
    digits.weights.write_bytes(_first_weights(hidden))
    return digits


def load_rows() -> npt.NDArray[np.int64]:
    """All digits, in the library's order, shape (1797, 65): pixels from 0 to 16, and the digit."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return np.column_stack([pixels, labels]).astype(np.int64)


def write_parts(
    folder: Path, held_out: npt.NDArray[np.int64], parts: Sequence[npt.NDArray[np.int64]], *, darkest: int
) -> Digits:
    """Write each shard's rows and those held out, with an ontology in which a pixel is from `darkest` to 16."""
    folder.mkdir(parents=True)
    ontology = folder / "ontology.ttl"
    ontology.write_text(_ontology(darkest), encoding="utf-8")
    digest = parse_ontology(ontology.read_bytes(), format="turtle", source=str(ontology)).digest
    _write_rows(folder / "held-out.csv", held_out, digest)
    for shard, part in enumerate(parts):
        _write_rows(folder / f"shard-{shard}.csv", part, digest)
    return Digits(folder, ontology, most_rows=max(len(part) for part in parts))


def _ontology(darkest: int) -> str:
    pixels = "\n".join(
        f':{name} a skos:Concept ; skos:prefLabel "{name}"@en ; lepton:datatype xsd:decimal ; lepton:unit "1" ;\n'
        f"    lepton:plausibleMinimum {darkest} ; lepton:plausibleMaximum {_BRIGHTEST} ."
        for name in PIXELS
    )
    values = "\n".join(f':{name} a skos:Concept ; skos:prefLabel "{name}"@en .' for name in DIGITS)
    target = (
        ':digit a skos:Concept ; skos:prefLabel "digit"@en ; lepton:datatype xsd:string ; lepton:valueSet :digits .\n'
        f":digits a skos:Collection ; skos:member {', '.join(f':{name}' for name in DIGITS)} ."
    )
    return f"{_PREFIXES}\n{pixels}\n{target}\n{values}\n"


def _write_rows(path: Path, rows: npt.NDArray[np.int64], ontology: str) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*PIXELS, "digit"])
        writer.writerows(rows.tolist())
    columns = [Column(column=name, concept=name, unit="1") for name in PIXELS]
    codes = {str(index): name for index, name in enumerate(DIGITS)}
    mapping = Mapping(
        ontology=ontology,
        vocabulary=VOCABULARY,
        source=Source(kind="csv", path=path.name),
        columns=(*columns, Column(column="digit", concept="digit", codes=codes)),
    )
    schema = dict.fromkeys([*PIXELS, "digit"], "text")
    approved = approve(mapping, schema=schema, approver="benchmark", date=dt.date(2026, 1, 1))
    path.with_suffix(".yaml").write_text(dump_mapping(approved), encoding="utf-8")


def _first_weights(hidden: Sequence[int]) -> bytes:
    """The first weights that torch itself makes after manual_seed(7), which everybody can make again."""
    import torch
    from safetensors.numpy import save
    from torch import nn

    torch.manual_seed(7)
    layers: list[nn.Module] = []
    width = len(PIXELS)
    for outputs in hidden:
        layers += [nn.Linear(width, outputs), nn.ReLU()]
        width = outputs
    module = nn.Sequential(*layers, nn.Linear(width, len(DIGITS)))
    return save({name: tensor.numpy() for name, tensor in module.state_dict().items()})
