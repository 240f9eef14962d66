"""The program's exit codes."""

from typing import Final

OK: Final = 0
FAILED: Final = 1
"""A test of `check` failed, the running proxy is not ready or did not reload, or the program has a defect."""
USAGE_ERROR: Final = 2
"""The command line, a setting, the key or a listener address is wrong."""
NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127
"""The command of `run` cannot be executed, or does not exist, as shells say it."""
SIGNAL_BASE: Final = 128
"""Added to the number of the signal that ended the process, as shells do."""
