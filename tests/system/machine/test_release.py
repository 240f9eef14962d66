"""`make release`, and the linters of the files that contributors use."""

import hashlib
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from nanonets_proxy import __version__
from support.commands.page_commands import ROOT
from system.machine.machine import machine
from system.podman import STATE, TOOLS, run, succeed

pytestmark = pytest.mark.system

IMAGE = f"nanonets-proxy-{__version__}-image.tar.gz"
EXTRAS_IMAGE = f"nanonets-proxy-{__version__}-extras-image.tar.gz"
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
BILL = f"nanonets-proxy-{__version__}.cdx.json"


def _commit(folder: Path) -> None:
    git = ("git", "-c", "user.name=test", "-c", "user.email=test@localhost", "-C", str(folder))
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "a release"]):
        subprocess.run([*git, *arguments], check=True)
    for environment in (".venv", ".venv-system"):
        (folder / environment).symlink_to(ROOT / environment)


@pytest.mark.usefixtures("image")
def test_a_release_has_all_files_with_their_checksums_and_one_version(tmp_path: Path) -> None:
    with machine(tmp_path) as own:
        folder = own.reader().folder
        _commit(folder)
        own.succeed("sh", "-c", f"cd {folder} && .ci/release", timeout_s=600)
        made = {path.name: path.read_bytes() for path in (folder / "dist").iterdir()}
        wrong_tag = f"cd {folder} && git tag v0.0.0 && ! .ci/release 2>&1"
        assert "the commit has the tag v0.0.0, but the version is" in own.succeed("sh", "-c", wrong_tag)
        own.succeed(
            "podman", "rmi", "--force", f"nanonets-proxy:{__version__}", f"nanonets-proxy:{__version__}-extras"
        )
    wheel, sdist = f"nanonets_proxy-{__version__}-py3-none-any.whl", f"nanonets_proxy-{__version__}.tar.gz"
    sums = dict(line.split("  ")[::-1] for line in made.pop("SHA256SUMS").decode().splitlines())
    assert sums == {name: hashlib.sha256(content).hexdigest() for name, content in made.items()}
    assert set(made) == {wheel, sdist, IMAGE, EXTRAS_IMAGE, BILL}
    assert json.loads(made[BILL])["metadata"]["component"]["version"] == __version__
    for name, tag in ((IMAGE, __version__), (EXTRAS_IMAGE, f"{__version__}-extras")):
        with tarfile.open(tmp_path / "nanonets-proxy" / "dist" / name) as archive:
            manifest = archive.extractfile("manifest.json")
            assert manifest is not None
            assert json.load(manifest)[0]["RepoTags"] == [f"localhost/nanonets-proxy:{tag}"]


def test_a_bill_of_materials_that_breaks_the_schema_is_found(tmp_path: Path) -> None:
    bill = tmp_path / "bill.json"
    lock = ROOT / "requirements" / "run.txt"
    made = json.loads(succeed(TOOLS / "python", ".ci/sbom.py", __version__, lock))
    bill.write_text(json.dumps(made))
    succeed(TOOLS / "python", ".ci/check_sbom.py", bill)
    made["components"][0]["type"] = "unknown"
    bill.write_text(json.dumps(made))
    done = run(TOOLS / "python", ".ci/check_sbom.py", bill)
    assert done.returncode == 1
    assert "does not follow CycloneDX 1.6" in done.stderr


def test_the_workflow_follows_its_schema_and_a_bad_one_is_found(tmp_path: Path) -> None:
    check = (TOOLS / "check-jsonschema", "--builtin-schema=vendor.github-workflows")
    succeed(*check, WORKFLOW)
    bad = tmp_path / "ci.yml"
    bad.write_text(WORKFLOW.read_text().replace("runs-on:", "runs_on:"))
    assert run(*check, bad).returncode == 1


@pytest.mark.parametrize("change", [("needs: check", "needs: chek"), ("github.event_name", "github.event_nme")])
def test_the_workflow_has_no_unknown_names_and_a_bad_one_is_found(tmp_path: Path, change: tuple[str, str]) -> None:
    """The schema knows neither expressions nor the names of jobs."""
    lint = ("node", ROOT / "tests" / "system" / "machine" / "lint_workflow.cjs", STATE / "clients")
    succeed(*lint, WORKFLOW)
    bad = tmp_path / "ci.yml"
    bad.write_text(WORKFLOW.read_text().replace(*change))
    done = run(*lint, bad)
    assert done.returncode == 1
    assert change[1].split()[-1].split(".")[-1] in done.stdout
