"""Builds the wheel with the path of a request compiled by mypyc: `make wheel-compiled`, or a build with
HATCH_BUILD_HOOK_ENABLE_CUSTOM=true. Without that, the wheel is pure Python and this file is not read.

The sources stay beside what is made of them, for tracebacks. Nothing is written into the source tree: an extension
left there would be imported instead of its module, tests included.
"""

import contextlib
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE_ROOT = "proxy"
PACKAGE = "nanonets_proxy"

# What each request runs through, and what those modules call: within one group mypyc calls functions directly and
# reads attributes at fixed places, so a module in between that is left out costs more than its own part.
COMPILED = (
    "compiled.py",
    "errors.py",
    "core/*.py",
    "downstream/attempts.py",
    "downstream/call.py",
    "downstream/handler.py",
    "downstream/passage.py",
    "downstream/relay.py",
    "downstream/waiting.py",
    "keys/keeper.py",
    "telemetry/log.py",
    "telemetry/metrics.py",
    "upstream/client.py",
    "upstream/connection.py",
    "upstream/pool.py",
    "upstream/reply.py",
    "upstream/time_limit.py",
)


class MypycHook(BuildHookInterface[Any]):
    """Compiles `COMPILED` into extensions for the wheel, which is then of one platform and Python."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        self._made_in = Path(tempfile.mkdtemp(prefix="nanonets-proxy-build-"))
        libraries = self._made_in / "lib"
        with contextlib.chdir(Path(self.root, SOURCE_ROOT)):
            compile_to(libraries, self._made_in / "work")
        for extension in libraries.rglob("*.so"):
            build_data["force_include"][str(extension)] = str(extension.relative_to(libraries))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 - as above
        shutil.rmtree(self._made_in)


def compile_to(libraries: Path, work: Path) -> None:
    """Compiles from the working directory, which holds the package."""
    # Here: a pure build has neither.
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    sources = sorted({str(path) for pattern in COMPILED for path in Path(PACKAGE).glob(pattern)})
    options = [
        "--config-file=",  # the project's own is for `make check`
        f"--cache-dir={work / 'cache'}",
        f"--python-executable={sys.executable}",
    ]
    extensions = mypycify(options + sources, group_name=PACKAGE, debug_level="0", target_dir=str(work / "c"))
    command = build_ext(Distribution({"name": PACKAGE, "ext_modules": extensions}))
    command.build_lib, command.build_temp = str(libraries), str(work / "objects")
    command.ensure_finalized()
    command.run()
