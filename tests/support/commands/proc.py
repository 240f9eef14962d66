"""Reads what Linux shows of another process in /proc (proc(5)), as any user could."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

WITHOUT_CAPABILITIES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--")


def shown_to_its_user(pid: int) -> bytes:
    """Returns the command line, environment and memory map that a process shows to other processes of its user.

    The kernel closes some of these files for a process that is not dumpable; a closed file counts as empty.
    Root would read them all, so as root the reading process gives up its capabilities first.
    """
    command_line, environ, maps = (f"/proc/{pid}/{name}" for name in ("cmdline", "environ", "maps"))
    drop = WITHOUT_CAPABILITIES if os.geteuid() == 0 else ()
    read = subprocess.run([*drop, "cat", command_line, environ, maps], capture_output=True, check=False)
    assert read.stdout, read.stderr
    return read.stdout


@dataclass(frozen=True)
class Witness:
    """A folder for PYTHONPATH: each process that starts from it and ends in the usual way leaves a report there.

    Nobody but root can look into a hardened process, so the process itself reports. A child that ends by `os._exit`
    leaves no report.
    """

    folder: Path

    @classmethod
    def in_folder(cls, folder: Path, extra: str = "") -> "Witness":
        """Makes the folder's `sitecustomize`; `extra` is further code that runs when a process starts."""
        (folder / "sitecustomize.py").write_text(_REPORT.format(folder=str(folder)) + extra)
        return cls(folder)

    @property
    def python_path(self) -> str:
        return os.pathsep.join(filter(None, [str(self.folder), os.environ.get("PYTHONPATH")]))

    def modules(self, pid: int) -> set[str]:
        """Returns the names of the modules that the process had imported when it ended."""
        return set(self._report(pid)["modules"])

    def pipes(self, pid: int) -> int:
        """Returns how many ends of pipes the process had open when it ended."""
        return int(self._report(pid)["pipes"])

    def _report(self, pid: int) -> "dict[str, list[str] | int]":
        return json.loads((self.folder / f"{pid}.json").read_text())


_REPORT = """
import atexit, os, sys

def _report():
    import json
    links = [os.path.realpath(f"/proc/self/fd/{{n}}") for n in os.listdir("/proc/self/fd")]
    pipes = sum("/pipe:" in link for link in links)
    with open(f"{folder}/{{os.getpid()}}.json", "w") as report:
        json.dump({{"modules": sorted(sys.modules), "pipes": pipes}}, report)

atexit.register(_report)
"""
