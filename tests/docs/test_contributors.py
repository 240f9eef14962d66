"""What contributors get: the workflow, the hooks and the development container do the same as the Makefile."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
WORKFLOW = (ROOT / ".github" / "workflows" / "ci.yml").read_text()


def test_the_workflow_only_calls_what_any_machine_can_run() -> None:
    commands = re.findall(r"- run: (.*)$", WORKFLOW, re.MULTILINE)
    assert commands == [".ci/run", "make release"]
    prepared = re.findall(r"^ +run: (\S+ \S+) ", WORKFLOW, re.MULTILINE)
    assert prepared == ["apt-get update", "git config"]


def test_the_workflow_pins_each_action_by_its_commit() -> None:
    actions = re.findall(r"uses: (.*)$", WORKFLOW, re.MULTILINE)
    assert actions
    assert [action for action in actions if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", action)] == []


def test_the_hooks_are_the_commands_of_make_check() -> None:
    recipe = re.findall(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[0]
    hooks = re.findall(r"^ +entry: (.*)$", (ROOT / ".pre-commit-config.yaml").read_text(), re.MULTILINE)
    assert hooks == [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe.splitlines()]


def test_each_helper_that_contributing_names_exists() -> None:
    named = re.findall(r"`(support/[\w/]+\.py)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert len(named) > 10
    assert [path for path in named if not (ROOT / "tests" / path).is_file()] == []


def test_the_development_container_has_the_packages_of_the_fresh_machine() -> None:
    folder = ROOT / ".devcontainer"
    settings = json.loads((folder / "devcontainer.json").read_text())
    installed = re.findall(
        r"--no-install-recommends (.*) \\", (folder / settings["build"]["dockerfile"]).read_text()
    )
    tested = re.findall(r"^packages=(.*)$", (ROOT / ".ci" / "fresh-root").read_text(), re.MULTILINE)
    assert installed == [tested[0].replace(",", " ")]
    assert settings["postCreateCommand"] == "make check"
