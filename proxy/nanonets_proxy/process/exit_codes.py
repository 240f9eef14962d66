"""The exit codes of the program."""

from typing import Final

OK: Final = 0
FAILED: Final = 1
"""A check failed, or something that nobody expected."""
USAGE_ERROR: Final = 2
"""The command line, a setting, the key or an address is wrong."""
SIGNAL_BASE: Final = 128
"""And the signal's number: how a shell tells such an end."""
