"""The locks pin the requirements of pyproject.toml, with hashes."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
GROUPS = PROJECT["dependency-groups"]
_NAME = r"[A-Za-z0-9._-]+(?:\[[^\]]+\])?"
_PINNED = re.compile(rf"^({_NAME})==([^\s;\\]+)(.*?)(?=^[A-Za-z0-9])", re.MULTILINE | re.DOTALL)

REQUIREMENTS = {
    "run": PROJECT["project"]["dependencies"],
    "dev": [*PROJECT["project"]["dependencies"], *(item for item in GROUPS["dev"] if isinstance(item, str))],
    "build": GROUPS["build"],
    "system": GROUPS["system"],
    "clients": GROUPS["clients"],
    "stores": [*PROJECT["project"]["dependencies"], *GROUPS["stores"]],
}


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_a_lock_pins_every_requirement_with_hashes(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    pinned = {}
    for found in _PINNED.finditer(text + "\nend"):
        requirement = Requirement(found[1])
        pinned[canonicalize_name(requirement.name)] = found[2], requirement.extras
    assert all("--hash=sha256:" in found[3] for found in _PINNED.finditer(text + "\nend"))
    for requirement in map(Requirement, REQUIREMENTS[name]):
        version, extras = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version)
        # Without the extras, pip up to 23.2 looks for the newest release that has them, which is not pinned.
        assert extras == requirement.extras
    unpinned = [line for line in text.splitlines() if not re.match(rf"#|    --hash=|{_NAME}==|$", line)]
    assert unpinned == []


def test_the_lock_of_an_extra_has_every_package_of_the_program() -> None:
    program = _packages(ROOT / "requirements" / "run.txt")
    extras = sorted(ROOT.glob("requirements/extra-*.txt"))
    assert extras
    assert {path.name: program - _packages(path) for path in extras} == {path.name: set() for path in extras}


def test_the_bill_of_materials_lists_every_package_of_the_program_and_its_extras() -> None:
    lock = ROOT / "requirements" / "run.txt"
    extras = sorted(ROOT.glob("requirements/extra-*.txt"))
    made = json.loads(_bill_of(lock, *extras).stdout)
    assert (made["bomFormat"], made["specVersion"]) == ("CycloneDX", "1.6")
    required = _packages(lock)
    optional = set().union(*map(_packages, extras)) - required
    listed = {scope: set() for scope in ("required", "optional")}
    for part in made["components"]:
        listed[part["scope"]].add((part["name"], part["version"]))
    assert listed == {"required": required, "optional": optional}
    hashes = [
        item
        for part in made["components"]
        if part["scope"] == "required"
        for item in part["externalReferences"][0]["hashes"]
    ]
    assert len(hashes) == lock.read_text().count("--hash=sha256:")
    references = {part["bom-ref"] for part in made["components"]}
    assert len(references) == len(made["components"])
    assert references == set(made["dependencies"][0]["dependsOn"])


def test_the_bill_of_materials_rejects_an_unlocked_requirement(tmp_path: Path) -> None:
    lock = tmp_path / "run.txt"
    lock.write_text("aiohttp>=3\n")
    assert _bill_of(lock).returncode != 0


def _packages(lock: Path) -> set[tuple[str, str]]:
    return {(found[1].lower(), found[2]) for found in _PINNED.finditer(lock.read_text() + "\nend")}


def _bill_of(*locks: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, ROOT / ".ci" / "sbom.py", "1.2.3", *locks]
    return subprocess.run(command, capture_output=True, check=False, text=True)
