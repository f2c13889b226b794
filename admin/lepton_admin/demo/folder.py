"""The demo's one folder: where everything lies, and when it may be replaced."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from lepton_admin.federations import SIGNED_FILE
from lepton_core.errors import ConflictError, FaultError

#: Marks a folder as the demo's own, so that a second run may replace it.
MARKER = ".lepton-demo"


@dataclass(frozen=True)
class DemoFolder:
    """Paths below the demo's folder."""

    root: Path

    @property
    def coordinator(self) -> Path:
        """The coordinator's home."""
        return self.root / "coordinator"

    @property
    def operator(self) -> Path:
        """The operator's profile."""
        return self.coordinator / "operator"

    @property
    def researcher(self) -> Path:
        """The researcher's profile."""
        return self.root / "researcher"

    @property
    def federation(self) -> Path:
        """The federation's key and lists, in the researcher's keeping."""
        return self.root / "researcher" / "federation"

    @property
    def data(self) -> Path:
        """Where the hospitals' data, mappings, the ontology and the job file lie."""
        return self.root / "data"

    @property
    def ontology(self) -> Path:
        """The ontology that the researcher publishes."""
        return self.data / "ontology.ttl"

    def mapping(self, owner: str) -> Path:
        """An owner's mapping, beside its data."""
        return self.data / owner / "mapping.yaml"

    def quality(self, owner: str) -> Path:
        """What an owner is told of the quality of its data."""
        return self.home(owner) / "quality.html"

    @property
    def invitations(self) -> Path:
        """Invitation files on their way."""
        return self.root / "invitations"

    @property
    def logs(self) -> Path:
        """One log a process."""
        return self.root / "logs"

    @property
    def baselines(self) -> Path:
        """What the demo computes beside the federation."""
        return self.root / "baselines"

    @property
    def model(self) -> Path:
        """The exported model."""
        return self.root / "model.safetensors"

    def home(self, owner: str) -> Path:
        """An owner's daemon's folder."""
        return self.root / "owners" / owner

    def is_demo(self) -> bool:
        """True if an earlier demo made it."""
        return (self.root / MARKER).is_file()

    def is_set_up(self) -> bool:
        """True if an earlier demo got as far as a signed federation over written data."""
        return (self.federation / SIGNED_FILE).is_file() and (self.data / "job.toml").is_file()

    def replace(self) -> None:
        """Make it empty and mark it.

        Raises:
            ConflictError: it holds something that no demo put there.
            FaultError: the disk refuses.
        """
        try:
            if self.root.exists() and any(self.root.iterdir() if self.root.is_dir() else [self.root]):
                if not self.is_demo():
                    raise ConflictError(
                        "the folder is not the demo's, so it is not replaced",
                        where=str(self.root),
                        expected=f"no folder, an empty one, or one with the file {MARKER}",
                        hint="name another with --folder",
                    )
                shutil.rmtree(self.root)
            self.root.mkdir(parents=True, exist_ok=True)
            (self.root / MARKER).write_text("made by `lepton demo`; replaced by the next run\n", encoding="utf-8")
        except OSError as error:
            raise FaultError("the folder cannot be written", where=str(self.root), got=error.strerror or "") from None


def example_folder() -> Path:
    """Where the hospitals example lies: inside the installed package, or in the checkout.

    Raises:
        FaultError: neither.
    """
    here = Path(__file__).resolve()
    for folder in (here.parent / "hospitals", here.parents[3] / "examples" / "hospitals"):
        if (folder / "make_data.py").is_file():
            return folder
    raise FaultError("the hospitals example is not installed", where=str(here.parent), hint="run from a checkout")


def load_example() -> ModuleType:
    """The example's `make_data`, as a module."""
    name = "lepton_hospitals_example"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, example_folder() / "make_data.py")
    if spec is None or spec.loader is None:
        raise FaultError("the hospitals example cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
