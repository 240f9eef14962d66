"""A Debian root in which systemd runs as the first process, in a container of systemd-nspawn."""

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from system.podman import ROOT, run, succeed, wait_for

_SETUP: Final = ROOT / "tests" / "system" / "setup_systemd.sh"


def make_root(folder: Path, *, with_service: bool) -> Path:
    """Makes a Debian root, with the program and its units if `with_service`, and returns its path."""
    root = folder / "root"
    succeed(_SETUP, ROOT / ".system" / "systemd", root, "service" if with_service else "plain", timeout_s=900)
    return root


@contextlib.contextmanager
def booted(root: Path, within: Sequence[str] = ()) -> Iterator[tuple[str, ...]]:
    """Boots the root, and yields a command that runs another one in it.

    The machine has the network of this process, or of the command `within`.
    """
    command = ["systemd-nspawn", "--quiet", f"--directory={root}", "--boot", "--register=no", "--keep-unit"]
    process = subprocess.Popen(
        [*within, *command, "--console=pipe"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, text=True
    )
    try:
        yield wait_for("systemd", lambda: _running(process.pid), within_s=120)
    finally:
        process.terminate()
        process.wait(60)


def _running(nspawn: int) -> tuple[str, ...] | None:
    """Returns the command into the machine once its systemd is up. The first child of nspawn only prepares it."""
    for child in Path(f"/proc/{nspawn}/task/{nspawn}/children").read_text().split():
        inside = ("nsenter", f"--target={child}", "--all")
        if run(*inside, "systemctl", "is-system-running").stdout.strip() in ("running", "degraded"):
            return inside
    return None
