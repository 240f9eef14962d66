"""What the proxy beside a command keeps."""

import subprocess
import sys

_PROGRAM = """
import sys
from nanonets_proxy.process.run.become import become

def run_proxy(companion):
    token = companion.take_token()
    kept = [name for name, value in vars(companion).items() if value == token]
    frame = sys._getframe(1)
    while frame is not None:
        kept += [name for name, value in frame.f_locals.items() if value == token]
        frame = frame.f_back
    print(len(token) > 40, kept, file=sys.stderr)
    return 3

sys.exit(become(["true"], run_proxy, is_sure=False, ignored_signals=()))
"""


def test_a_proxy_that_has_taken_the_token_of_its_command_does_not_keep_its_text() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, check=False, text=True)
    assert (done.returncode, done.stderr) == (3, "True []\n")
