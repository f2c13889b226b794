"""Five hospitals and one more, each with real patients in its own shape, and the researcher's public hold-out.

    python examples/hospitals/make_data.py FOLDER

The patients are the 569 of the Wisconsin Diagnostic Breast Cancer data, which ships with scikit-learn. Their values
are unchanged but for unit and code, and for a few planted faults that the summary counts.
"""

from __future__ import annotations

import argparse
import datetime as dt
import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import polars as pl

from lepton_core.ids import Digest
from lepton_kg.approval import approve
from lepton_kg.mapping import Column, CsvOptions, Source, dump_mapping
from lepton_kg.mapping import Mapping as OwnerMapping
from lepton_kg.ontology import parse_ontology
from lepton_kg.source import source_schema

HERE = Path(__file__).resolve().parent
VOCABULARY = "https://example.org/hospitals/"
#: Patients whom the researcher may show to anybody.
HOLDOUT_ROWS = 171
#: Optional in job.toml, and absent from one hospital.
OPTIONAL_CONCEPT = "fractal-dimension-error"
#: Required in job.toml, and absent from the hospital that is refused.
REFUSED_LACKS = "worst-concave-points"
#: Day on the mappings' approvals.
_APPROVED_ON = dt.date(2025, 1, 15)
#: The planted typing error: a decimal point lost, 17.99 written as 1799.
_MISTYPED_CONCEPT, _MISTYPED_SHIFT = "mean-radius", 2
#: The required concept with a planted missing code.
_BLANK_CONCEPT = "worst-texture"
_PLAIN_CSV = Source(kind="csv", path="data.csv")


@dataclass(frozen=True)
class Shape:
    """How one hospital writes things down."""

    name: str
    rows: int
    #: Concept's local name -> the hospital's column.
    column: Callable[[str], str]
    target_column: str = "diagnosis"
    source: Source = _PLAIN_CSV
    #: Codes of malignant and benign.
    diagnoses: tuple[str, str] = ("M", "B")
    missing: str = ""
    #: Unit as the mapping spells it, and the power of ten that takes millimetres (squared) to it.
    length: tuple[str, int] = ("mm", 0)
    area: tuple[str, int] = ("mm2", 0)
    #: Concepts it does not record.
    absent: tuple[str, ...] = ()
    #: Rows with a planted fault of each kind.
    mistyped_rows: int = 0
    blank_required_rows: int = 0
    blank_optional_rows: int = 0


@dataclass(frozen=True)
class HospitalFiles:
    """What was written for one hospital; patients are row numbers of the scikit-learn data, in file order."""

    name: str
    kind: str
    rows: int
    data: Path
    mapping: Path
    patients: tuple[int, ...]
    #: Patients with a value no plan believes, or without a required one: the plan refuses these rows.
    mistyped: tuple[int, ...]
    blank_required: tuple[int, ...]
    #: Patients without a value for the optional concept: the plan imputes it.
    blank_optional: tuple[int, ...]
    #: Concepts without a column.
    absent: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """Everything `write_hospitals` wrote."""

    folder: Path
    ontology: Path
    ontology_digest: Digest
    job: Path
    holdout: HospitalFiles
    hospitals: tuple[HospitalFiles, ...]
    #: The one whose data cannot serve the job; its patients repeat some of the last hospital's.
    refused: HospitalFiles


#: Property -> German, Chinese and abbreviated.
_WORDS = {
    "radius": ("Radius", "半径", "rad"),
    "texture": ("Textur", "纹理", "tex"),
    "perimeter": ("Umfang", "周长", "peri"),
    "area": ("Fläche", "面积", "area"),
    "smoothness": ("Glattheit", "光滑度", "smooth"),
    "compactness": ("Kompaktheit", "紧密度", "compact"),
    "concavity": ("Konkavität", "凹度", "concav"),
    "concave-points": ("konkave Punkte", "凹点", "ccpts"),
    "symmetry": ("Symmetrie", "对称性", "symm"),
    "fractal-dimension": ("fraktale Dimension", "分形维数", "fracdim"),
}
_LENGTHS = {"radius", "perimeter"}


def write_hospitals(folder: Path, *, seed: int = 0) -> Summary:
    """The whole example below the folder: ontology, job, public hold-out, and a folder for each hospital.

    The same seed writes the same files; what stood under their names is replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    turtle = (HERE / "ontology.ttl").read_bytes()
    (folder / "ontology.ttl").write_bytes(turtle)
    digest = parse_ontology(turtle, format="turtle", source="ontology.ttl").digest
    template = (HERE / "job.toml").read_text("utf-8")
    job = re.sub(r'^ontology = "[0-9a-f]{64}"$', f'ontology = "{digest}"', template, flags=re.MULTILINE)
    (folder / "job.toml").write_text(job, "utf-8")

    patients = _Patients.load()
    holdout, parts = _split(patients.malignant, [shape.rows for shape in HOSPITALS], seed)
    random = np.random.default_rng([seed, 1])
    hospitals = tuple(
        _write(folder / shape.name, shape, patients, part=part, digest=digest, random=random)
        for shape, part in zip(HOSPITALS, parts, strict=True)
    )
    return Summary(
        folder=folder,
        ontology=folder / "ontology.ttl",
        ontology_digest=digest,
        job=folder / "job.toml",
        holdout=_write(folder, HOLDOUT, patients, part=holdout, digest=digest, random=random),
        hospitals=hospitals,
        refused=_write(
            folder / REFUSED.name, REFUSED, patients, part=parts[-1][: REFUSED.rows], digest=digest, random=random
        ),
    )


def _english(concept: str) -> str:
    prop, statistic = _parts(concept)
    return prop.replace("-", "_") + {"mean": "_mean", "error": "_se", "worst": "_worst"}[statistic]


def _german(concept: str) -> str:
    prop, statistic = _parts(concept)
    unit = " (cm)" if prop in _LENGTHS else " (cm²)" if prop == "area" else ""
    return _WORDS[prop][0] + {"mean": " Mittelwert", "error": " Standardfehler", "worst": " Maximum"}[statistic] + unit


def _chinese(concept: str) -> str:
    prop, statistic = _parts(concept)
    word = _WORDS[prop][1]
    return {"mean": f"{word}均值", "error": f"{word}标准误", "worst": f"最大{word}"}[statistic]


def _abbreviated(concept: str) -> str:
    prop, statistic = _parts(concept)
    unit = "_um" if prop in _LENGTHS else "_um2" if prop == "area" else ""
    return _WORDS[prop][2] + {"mean": "_avg", "error": "_se", "worst": "_max"}[statistic] + unit


def _shouted(concept: str) -> str:
    prop, statistic = _parts(concept)
    return f"NUC-{prop}".upper() + {"mean": "-AVG", "error": "-STDERR", "worst": "-LARGEST"}[statistic]


def _parts(concept: str) -> tuple[str, str]:
    """`mean-radius` and `radius-error` as property and statistic."""
    if concept.endswith("-error"):
        return concept.removesuffix("-error"), "error"
    statistic, prop = concept.split("-", 1)
    return prop, statistic


HOSPITALS = (
    Shape("aurora", 100, _english, mistyped_rows=2, blank_required_rows=1, blank_optional_rows=3),
    Shape(
        "birken",
        90,
        _german,
        "Befund",
        source=Source(kind="csv", path="data.csv", csv=CsvOptions(delimiter=";", encoding="cp1252", decimal=",")),
        diagnoses=("bösartig", "gutartig"),
        missing="NA",
        length=("cm", -1),
        area=("cm²", -2),
        mistyped_rows=1,
        blank_required_rows=1,
        blank_optional_rows=2,
    ),
    Shape(
        "changhe",
        80,
        _chinese,
        "诊断",
        source=Source(kind="parquet", path="data.parquet"),
        diagnoses=("恶性", "良性"),
        missing="-9",
        area=("mm²", 0),
        absent=(OPTIONAL_CONCEPT,),
        blank_required_rows=1,
    ),
    Shape(
        "delta-clinic",
        70,
        _abbreviated,
        "malignant_yn",
        source=Source(kind="sqlite", path="data.sqlite", table="biopsies"),
        diagnoses=("1", "0"),
        missing="-999",
        length=("µm", 3),
        area=("um2", 6),
        mistyped_rows=1,
        blank_optional_rows=2,
    ),
    Shape(
        "elm-park",
        58,
        _shouted,
        "RESULT",
        diagnoses=("cancer", "no cancer"),
        missing="9999",
        area=("mm^2", 0),
        blank_required_rows=2,
        blank_optional_rows=1,
    ),
)
REFUSED = Shape("fjord", 40, _english, absent=(REFUSED_LACKS,))
_HOLDOUT_CSV = Source(kind="csv", path="holdout.csv")
HOLDOUT = Shape("holdout", HOLDOUT_ROWS, str, source=_HOLDOUT_CSV, diagnoses=("malignant", "benign"))

_MEASURES = "radius texture perimeter area smoothness compactness concavity concave-points symmetry fractal-dimension"


@dataclass(frozen=True)
class _Patients:
    #: Concept's local name -> the values of all patients, exactly as published.
    values: Mapping[str, tuple[Decimal, ...]]
    malignant: tuple[bool, ...]

    @classmethod
    def load(cls) -> _Patients:
        # What sklearn.datasets.load_breast_cancer reads; importing it takes longer than all that this script does.
        table = distribution("scikit-learn").locate_file("sklearn/datasets/data/breast_cancer.csv")
        *columns, malignant = np.loadtxt(str(table), delimiter=",", skiprows=1).T.tolist()
        parts = (("mean-", ""), ("", "-error"), ("worst-", ""))
        names = [f"{before}{measure}{after}" for before, after in parts for measure in _MEASURES.split()]
        values = {n: tuple(Decimal(str(v)) for v in column) for n, column in zip(names, columns, strict=True)}
        return cls(values, tuple(value == 0 for value in malignant))


def _split(malignant: Sequence[bool], sizes: Sequence[int], seed: int) -> tuple[list[int], list[list[int]]]:
    """Disjoint patients: the hold-out with the classes' shares of all, and one part a hospital."""
    random = np.random.default_rng([seed, 0])
    order = [int(patient) for patient in random.permutation(len(malignant))]
    by_class = [[p for p in order if malignant[p]], [p for p in order if not malignant[p]]]
    count = round(HOLDOUT_ROWS * len(by_class[0]) / len(order))
    holdout = sorted(by_class[0][:count] + by_class[1][: HOLDOUT_ROWS - count])
    rest = [patient for patient in order if patient not in set(holdout)]
    parts, start = [], 0
    for size in sizes:
        parts.append(sorted(rest[start : start + size]))
        start += size
    return holdout, parts


def _write(
    folder: Path, shape: Shape, patients: _Patients, *, part: Sequence[int], digest: Digest, random: np.random.Generator
) -> HospitalFiles:
    folder.mkdir(parents=True, exist_ok=True)
    shuffled = [int(patient) for patient in random.permutation(np.asarray(part))]
    first = shape.mistyped_rows
    second = first + shape.blank_required_rows
    mistyped, blank_required = shuffled[:first], shuffled[first:second]
    blank_optional = shuffled[second : second + shape.blank_optional_rows]
    concepts = [concept for concept in patients.values if concept not in shape.absent]

    columns: dict[str, list[Decimal | None]] = {}
    for concept in concepts:
        power = _unit(concept, shape)[1]
        blanks = {_BLANK_CONCEPT: blank_required, OPTIONAL_CONCEPT: blank_optional}.get(concept, [])
        columns[shape.column(concept)] = [
            None
            if patient in blanks
            else patients.values[concept][patient].scaleb(
                power + (_MISTYPED_SHIFT if concept == _MISTYPED_CONCEPT and patient in mistyped else 0)
            )
            for patient in part
        ]
    target = [shape.diagnoses[0 if patients.malignant[patient] else 1] for patient in part]
    _write_source(folder / str(shape.source.path), shape, columns, target)

    mapping = OwnerMapping(
        ontology=digest,
        vocabulary=VOCABULARY,
        source=shape.source,
        columns=(
            *(
                Column(
                    column=shape.column(concept),
                    concept=concept,
                    unit=_unit(concept, shape)[0],
                    missing=(shape.missing,),
                    justification="data dictionary of the source",
                )
                for concept in concepts
            ),
            Column(
                column=shape.target_column,
                concept="diagnosis",
                codes=dict(zip(shape.diagnoses, ("malignant", "benign"), strict=True)),
                justification="data dictionary of the source",
            ),
        ),
    )
    schema = source_schema(shape.source, folder)
    approved = approve(mapping, approver=f"data steward of {shape.name}", date=_APPROVED_ON, schema=schema)
    path = folder / ("holdout.yaml" if shape is HOLDOUT else "mapping.yaml")
    path.write_text(dump_mapping(approved), "utf-8")
    return HospitalFiles(
        name=shape.name,
        kind=shape.source.kind,
        rows=len(part),
        data=folder / str(shape.source.path),
        mapping=path,
        patients=tuple(part),
        mistyped=tuple(sorted(mistyped)),
        blank_required=tuple(sorted(blank_required)),
        blank_optional=tuple(sorted(blank_optional)),
        absent=shape.absent,
    )


def _unit(concept: str, shape: Shape) -> tuple[str, int]:
    prop = _parts(concept)[0]
    return shape.length if prop in _LENGTHS else shape.area if prop == "area" else ("1", 0)


def _write_source(path: Path, shape: Shape, columns: Mapping[str, list[Decimal | None]], target: list[str]) -> None:
    if shape.source.kind == "csv":
        options = shape.source.csv or CsvOptions()
        lines = [[shape.target_column, *columns]]
        for row, label in enumerate(target):
            cells = [columns[name][row] for name in columns]
            lines.append([label, *(shape.missing if cell is None else f"{cell:f}" for cell in cells)])
        # No cell holds the delimiter, a quote or a line end, so none needs quoting.
        decimal = [[cell.replace(".", options.decimal) if i else cell for i, cell in enumerate(ln)] for ln in lines[1:]]
        text = "\n".join(options.delimiter.join(line) for line in [lines[0], *decimal]) + "\n"
        path.write_bytes(text.encode(options.encoding))
        return
    missing = float(shape.missing)
    numbers = {name: [missing if cell is None else float(cell) for cell in cells] for name, cells in columns.items()}
    if shape.source.kind == "parquet":
        pl.DataFrame({shape.target_column: target, **numbers}).write_parquet(path)
        return
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as connection, connection:
        names = ", ".join(f'"{name}" REAL' for name in numbers)
        table = shape.source.table
        connection.execute(f'CREATE TABLE "{table}" ("{shape.target_column}" INTEGER, {names})')
        marks = ", ".join("?" * (len(numbers) + 1))
        rows = zip([int(label) for label in target], *numbers.values(), strict=True)
        connection.executemany(f'INSERT INTO "{table}" VALUES ({marks})', rows)  # noqa: S608 - names from this file


def _main() -> None:
    parser = argparse.ArgumentParser(description="Write the hospitals example.")
    parser.add_argument("folder", type=Path, help="where to write; files of the same names are replaced")
    parser.add_argument("--seed", type=int, default=0, help="which patients go where (default: 0)")
    arguments = parser.parse_args()
    summary = write_hospitals(arguments.folder, seed=arguments.seed)
    print(f"ontology  {summary.ontology_digest}")
    print(f"job       {summary.job}")
    for files in (*summary.hospitals, summary.refused, summary.holdout):
        print(
            f"{files.name:13} {files.rows:4} patients, {files.kind:8} mistyped {len(files.mistyped)}, "
            f"blank {len(files.blank_required) + len(files.blank_optional)}, "
            f"absent {', '.join(files.absent) or 'none'}"
        )


if __name__ == "__main__":
    _main()
