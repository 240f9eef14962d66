"""The program where /proc is not mounted, as in some chroots: it works, with less to harden."""

import sys
from pathlib import Path

import pytest

from support.commands.process import COMMAND, finished

pytestmark = pytest.mark.system

CALL = """
import base64, os, urllib.request
token = base64.b64encode((os.environ["NANONETS_API_KEY"] + ":").encode()).decode()
url = os.environ["NANONETS_BASE_URL"] + "/api/v4/workflows"
print(urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": "Basic " + token})).status)
"""


def test_run_works_and_the_command_gets_its_response(tmp_path: Path) -> None:
    command = [*COMMAND, "run", "--sandbox", "--", sys.executable, "-c", CALL]
    without_proc = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]
    done = finished([*without_proc, *command], tmp_path, NANONETS_API_KEY="a-key")
    assert (done.returncode, done.stdout, done.stderr) == (0, "200\n", "")
