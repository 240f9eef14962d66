"""The program where /proc is not mounted, as in some chroots: it works, with less to harden."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.commands.process import COMMAND, END_S, environment

pytestmark = pytest.mark.system

CALL = """
import base64, os, urllib.request
token = base64.b64encode((os.environ["NANONETS_API_KEY"] + ":").encode()).decode()
url = os.environ["NANONETS_BASE_URL"] + "/api/v4/workflows"
print(urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": "Basic " + token})).status)
"""


def test_run_works_and_the_command_gets_its_response(tmp_path: Path) -> None:
    command = [*COMMAND, "run", "--sandbox", "--", sys.executable, "-c", CALL]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh", *command],
        env=environment(NANONETS_API_KEY="a-key"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=END_S,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "200\n", "")
