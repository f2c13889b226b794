"""Hatchling's hook: compile the codec's inner loops where there is a C compiler; without one nothing is missing."""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_FOLDER = "compression/lepton_compression/native"


class KernelHook(BuildHookInterface[Any]):
    """Adds the library to a wheel, or lays it beside its sources for an editable installation."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - the interface's
        """Compile; a failure is a warning."""
        folder = Path(self.root) / _FOLDER
        spec = importlib.util.spec_from_file_location("lepton_native_build", folder / "build.py")
        if spec is None or spec.loader is None:
            raise FileNotFoundError(folder / "build.py")
        build = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(build)
        failure = build.build_library(folder, folder / build.LIBRARY)
        if failure is not None:
            self.app.display_warning(f"{failure}; numpy will compute what the compiled loops would, more slowly")
            return
        build_data["artifacts"].append(f"{_FOLDER}/{build.LIBRARY}")
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"
