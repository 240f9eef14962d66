"""The content of the container image."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from nanonets_proxy import __version__
from system.podman import BASE, IMAGE, ROOT, TOOLS, build, files_of, podman, run, run_once, succeed

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("image")]

MEGABYTE = 1_000_000


def _inspect(image: str) -> Any:
    return json.loads(podman("image", "inspect", image))[0]


def _in_image(program: str, *options: str) -> str:
    """Runs a Python program in a new container of the image, and returns its output."""
    done = run_once("-c", program, options=("--entrypoint=python", *options))
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- content --------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["Dockerfile", ".devcontainer/Dockerfile"])
def test_a_dockerfile_passes_its_linter(file: str) -> None:
    succeed(TOOLS / "hadolint", file)


def test_the_linter_finds_a_bad_dockerfile(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text((ROOT / "Dockerfile").read_text() + "USER root\nRUN cd /tmp && pip install aiohttp\n")
    done = run(TOOLS / "hadolint", bad)
    assert done.returncode != 0
    assert {"DL3002", "DL3013"} <= set(re.findall(r"DL\d+", done.stdout))


def test_the_image_configures_start_stop_and_health_check() -> None:
    image = _inspect(IMAGE)
    config = image["Config"]
    assert config["Entrypoint"] == ["env", "--block-signal=TERM,INT", "nanonets-proxy"]
    assert config["Cmd"] == ["serve"]
    assert config["StopSignal"] in ("SIGTERM", "15")
    assert config["User"] == "10001:10001"
    assert image["Healthcheck"]["Test"] == ["CMD", "nanonets-proxy", "healthcheck"]
    assert set(config["ExposedPorts"]) == {"8080/tcp", "8081/tcp"}


def test_its_labels_name_program_version_and_license() -> None:
    labels = _inspect(IMAGE)["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == "nanonets-proxy"
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_a_build_from_the_layers_of_another_version_has_its_own_labels(image: str) -> None:
    tag = f"{image}:next"
    build("--build-arg=VERSION=0.99.0", "--build-arg=REVISION=0123abc", f"--tag={tag}", is_cached=True)
    try:
        labels = _inspect(tag)["Config"]["Labels"]
    finally:
        run("podman", "rmi", "--force", tag)
    assert labels["org.opencontainers.image.version"] == "0.99.0"
    assert labels["org.opencontainers.image.revision"] == "0123abc"


def test_it_runs_the_version_of_this_source() -> None:
    assert run_once("--version").stdout == f"nanonets-proxy {__version__}\n"


def test_the_build_context_has_only_the_necessary_files(tmp_path: Path) -> None:
    containerfile = tmp_path / "Containerfile"
    containerfile.write_text(f"FROM {BASE}\nCOPY . /context\n")
    tag = "nanonets-proxy-test-context"
    podman("build", "--layers=false", f"--file={containerfile}", f"--tag={tag}", ".")
    try:
        program = (
            "import os; print('\\n'.join(os.path.join(d, f)[9:] for d, _, fs in os.walk('/context') for f in fs))"
        )
        files = podman("run", "--rm", "--network=none", tag, "python3", "-c", program).split()
    finally:
        run("podman", "rmi", "--force", tag)
    assert {file for file in files if not file.startswith("proxy/")} == {
        "LICENSE",
        "README.md",
        "pyproject.toml",
        "requirements/build.txt",
        *(str(path.relative_to(ROOT)) for path in ROOT.glob("requirements/extra-*.txt")),
        "requirements/run.txt",
    }
    assert "proxy/nanonets_proxy/cli/main.py" in files
    assert not [file for file in files if "__pycache__" in file]


def test_all_files_belong_to_root_and_only_root_can_write() -> None:
    program = """
import os, stat
for top in ("/opt", "/etc/nanonets-proxy"):
    for directory, names, files in os.walk(top):
        for path in [directory, *(os.path.join(directory, name) for name in (*names, *files))]:
            entry = os.lstat(path)
            if entry.st_uid or entry.st_gid or (entry.st_mode & 0o022 and not stat.S_ISLNK(entry.st_mode)):
                print(path)
"""
    assert _in_image(program) == ""


def test_it_contains_neither_build_tools_nor_a_package_cache() -> None:
    program = """
import importlib.util, os
print([path for path in ("/src", "/opt/build", "/root/.cache", "/run/secrets") if os.path.exists(path)])
print([name for name in ("pip", "setuptools", "hatchling", "pytest") if importlib.util.find_spec(name)])
"""
    assert _in_image(program, "--user=0") == "[]\n[]\n"


def test_the_image_with_extras_has_all_of_them_and_the_other_image_none(extras_image: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    packages = [
        re.split(r"[^\w-]", text)[0] for texts in project["optional-dependencies"].values() for text in texts
    ]
    program = f"""
import importlib.metadata
installed = {{distribution.name.lower() for distribution in importlib.metadata.distributions()}}
print(sorted(installed & {set(packages)!r}))
"""
    options = ("--rm", "--network=none", "--no-healthcheck", "--entrypoint=python")
    assert podman("run", *options, extras_image, "-c", program) == f"{sorted(packages)}\n"
    assert _in_image(program) == "[]\n"
    assert _inspect(extras_image)["Config"] == _inspect(IMAGE)["Config"]


def test_two_builds_have_the_same_files(image: str) -> None:
    tag = "nanonets-proxy-test-again"
    try:
        build(f"--build-arg=VERSION={__version__}", f"--tag={tag}")
        first, second = files_of(image), files_of(tag)
    finally:
        run("podman", "rmi", "--force", tag)
    assert len(first) > 5000
    assert sorted(path for path in first.keys() | second.keys() if first.get(path) != second.get(path)) == []


def test_it_contains_the_bytecode_of_every_module_that_serves() -> None:
    program = """
import os, sys
import nanonets_proxy.cli.main, nanonets_proxy.cli.commands, nanonets_proxy.cli.run, nanonets_proxy.cli.serving
import nanonets_proxy.process.settings_reader, nanonets_proxy.process.serve
specs = [module.__spec__ for module in list(sys.modules.values()) if getattr(module, "__spec__", None)]
cached = [spec.cached for spec in specs if spec.has_location and spec.cached]
print(len(cached) > 300, [path for path in cached if not os.path.exists(path)])
"""
    assert _in_image(program) == "True []\n"


def test_the_bytecode_of_its_packages_does_not_depend_on_timestamps() -> None:
    # PEP 552: flags follow the magic number; 1 means a hash that is never checked.
    program = """
import importlib.util, os
for directory, _, files in os.walk("/opt/nanonets-proxy/lib"):
    for path in (os.path.join(directory, name) for name in files if name.endswith(".py")):
        with open(importlib.util.cache_from_source(path), "rb") as file:
            if file.read(8)[4:] != b"\\x01\\0\\0\\0":
                print(path)
"""
    assert _in_image(program) == ""


def test_it_adds_less_than_60_mb_to_its_base_and_with_extras_less_than_120_mb(
    extras_image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    added_mb = [(_inspect(image)["Size"] - _inspect(BASE)["Size"]) / MEGABYTE for image in (IMAGE, extras_image)]
    with capsys.disabled():
        print(f"\nimage: {added_mb[0]:.0f} MB above its base; with extras {added_mb[1]:.0f} MB")  # noqa: T201 - shown to the user of the tests
    assert added_mb[0] < 60
    assert added_mb[1] < 120
