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


def test_the_bill_of_materials_lists_every_runtime_package() -> None:
    lock = (ROOT / "requirements" / "run.txt").read_text()
    command = [sys.executable, str(ROOT / ".ci" / "sbom.py"), "1.2.3"]
    made = json.loads(subprocess.run(command, input=lock, capture_output=True, check=True, text=True).stdout)
    assert (made["bomFormat"], made["specVersion"]) == ("CycloneDX", "1.6")
    listed = {(part["name"], part["version"]) for part in made["components"]}
    assert listed == {(found[1].lower(), found[2]) for found in _PINNED.finditer(lock + "\nend")}
    hashes = [item for part in made["components"] for item in part["externalReferences"][0]["hashes"]]
    assert len(hashes) == lock.count("--hash=sha256:")
    references = {part["bom-ref"] for part in made["components"]}
    assert len(references) == len(made["components"])
    assert references == set(made["dependencies"][0]["dependsOn"])


def test_the_bill_of_materials_rejects_an_unlocked_requirement() -> None:
    command = [sys.executable, str(ROOT / ".ci" / "sbom.py"), "1.2.3"]
    made = subprocess.run(command, input="aiohttp>=3\n", capture_output=True, check=False, text=True)
    assert made.returncode != 0
