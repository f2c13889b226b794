"""Generate the protobuf and gRPC code from `protos/lepton/v1/*.proto` into `lepton_protos/v1`."""

from __future__ import annotations

import re
import sys
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

from grpc_tools import protoc

HERE = Path(__file__).parent
COMMITTED = HERE / "lepton_protos" / "v1"


def generate(target: Path) -> list[Path]:
    """Write `*_pb2.py`, `*_pb2.pyi` and `*_pb2_grpc.py` into `target`; returns the files written."""
    sources = sorted((HERE / "lepton" / "v1").glob("*.proto"))
    with TemporaryDirectory() as folder:
        status = protoc.main(
            [
                "protoc",
                f"--proto_path={HERE}",
                f"--proto_path={files('grpc_tools') / '_proto'}",
                f"--python_out={folder}",
                f"--pyi_out={folder}",
                f"--grpc_python_out={folder}",
                *(str(source) for source in sources),
            ]
        )
        if status:
            raise SystemExit(status)
        target.mkdir(parents=True, exist_ok=True)
        written = []
        for made in sorted((Path(folder) / "lepton" / "v1").iterdir()):
            text = re.sub(r"\bfrom lepton\.v1 import\b", "from lepton_protos.v1 import", made.read_text())
            place = target / made.name
            place.write_text(text)
            written.append(place)
    return written


if __name__ == "__main__":
    for path in generate(Path(sys.argv[1]) if len(sys.argv) > 1 else COMMITTED):
        sys.stdout.write(f"{path.name}\n")
