"""What a process without coordination does not load."""

import subprocess
import sys

_PROGRAM = """
import sys
import nanonets_proxy.process.serve
loaded = [name for name in sys.modules if name.partition(".")[0] == "redis" or "fleet.replica" in name]
print(loaded)
"""


def test_the_serving_process_loads_neither_the_client_of_redis_nor_the_replica() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, check=True, text=True)
    assert done.stdout == "[]\n"
