"""Build hook: compiles the engine's kernels into the wheel, when there is a compiler.

Without one the wheel is pure Python and the kernels' PyTorch twins run. Set
``LORAFIT_BUILD=require`` to fail instead, or ``LORAFIT_BUILD=skip`` not to try.
"""

from __future__ import annotations

import os
import runpy
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import sys_tags


class KernelHook(BuildHookInterface):
    """Runs src/lorafit/engine/native/build.py and ships what it writes."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it collects the files of the wheel."""
        mode = os.environ.get("LORAFIT_BUILD", "try")
        if self.target_name != "wheel" or mode == "skip":
            return
        script = Path(self.root) / "src" / "lorafit" / "engine" / "native" / "build.py"
        try:
            built = runpy.run_path(str(script))["build"]()
        except (RuntimeError, OSError) as error:
            if mode == "require":
                raise
            self.app.display_warning(f"kernels not compiled, PyTorch runs instead: {error}")
            return
        build_data["pure_python"] = False
        # The libraries know nothing of Python: one wheel a platform, for every version.
        build_data["tag"] = f"py3-none-{next(sys_tags()).platform}"
        build_data["artifacts"] += [str(path.relative_to(self.root)) for path in built]
