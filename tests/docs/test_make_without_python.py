"""`make run` with a Python that cannot make the environment: one sentence with the cure, and no traceback."""

import os
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[2] / "Makefile"

NO_ENSUREPIP = """\
#!/bin/sh
case "$2" in *ensurepip*) echo "Traceback (most recent call last):" >&2; exit 1;; esac
"""
TOO_OLD = "#!/bin/sh\nexit 1\n"


@pytest.mark.parametrize(
    ("python", "sentence"),
    [
        (NO_ENSUREPIP, "this Python cannot make virtual environments. On Debian: apt-get install python3-venv"),
        (
            TOO_OLD,
            "Python 3.11 or newer is needed. If it is installed under another name: make PYTHON=python3.13 ...",
        ),
        (None, "Python 3.11 or newer is needed. If it is installed under another name: make PYTHON=python3.13 ..."),
    ],
    ids=["without ensurepip", "too old", "missing"],
)
def test_make_run_names_the_cure_and_nothing_before_it(python: str | None, sentence: str, tmp_path: Path) -> None:
    name = tmp_path / "python"
    if python is not None:
        name.write_text(python)
        name.chmod(0o755)
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "run.txt").touch()
    done = subprocess.run(
        ["make", f"--makefile={MAKEFILE}", f"PYTHON={name}", "run"],
        cwd=tmp_path,
        # `make test` must not tell this one that it is part of another make.
        env={name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == f"make: {sentence}"
    assert done.stdout == ""
