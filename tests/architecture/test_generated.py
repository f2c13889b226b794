"""The generated protobuf code in the checkout is what the .proto files give."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from tests.architecture.sources import ROOT, is_generated

PROTOS = ROOT / "protos" / "lepton" / "v1"
GENERATED = ROOT / "protos" / "lepton_protos" / "v1"


def generator() -> ModuleType:
    """protos/generate.py, which is a script and not part of a package."""
    spec = importlib.util.spec_from_file_location("protos_generate", ROOT / "protos" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def generated_files(root: Path) -> dict[str, str]:
    """File name to text of everything protoc wrote below the folder."""
    files = (path for path in root.rglob("*.py*") if path.suffix in {".py", ".pyi"} and is_generated(path))
    return {path.name: path.read_text(encoding="utf-8") for path in files}


def test_generated_protobuf_code_is_fresh(tmp_path: Path) -> None:
    generator().generate(tmp_path)

    fresh = generated_files(tmp_path)
    committed = generated_files(GENERATED)

    assert fresh, "the generator wrote nothing"
    assert sorted(fresh) == sorted(committed), "run `make protos` and commit the result"
    stale = [name for name, text in fresh.items() if committed[name] != text]
    assert stale == [], "run `make protos` and commit the result"


def test_every_proto_file_has_generated_code() -> None:
    protos = sorted(path.stem for path in PROTOS.glob("*.proto"))
    assert protos, "no .proto file found"
    assert [name for name in protos if f"{name}_pb2.py" not in generated_files(GENERATED)] == []
