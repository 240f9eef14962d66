"""Runs the recipes of docs/clients.md that need no Debian packages; tests/system/clients runs the others."""

import sys
from pathlib import Path

import pytest

from support.commands.clients_page import recipe
from support.commands.process import completed, environment

WORKFLOWS = "{'workflows': []}\n"


@pytest.mark.parametrize(
    ("client", "language", "output"),
    [
        ("curl", "sh", WORKFLOWS.replace("'", '"').strip()),
        ("requests and httpx", "python", WORKFLOWS * 2),
        ("PyPI nanonetsclient", "python", "[]\n"),
    ],
)
def test_the_recipe_of_a_client_works_under_run(client: str, language: str, output: str, tmp_path: Path) -> None:
    program = {"sh": "sh", "python": sys.executable}[language]
    done = completed(["run", "--sandbox", "--", program, "-c", recipe(client, language)], environment(), tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, output, "")
