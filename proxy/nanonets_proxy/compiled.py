"""Whether this program runs compiled; this module is, with all the others that are (hatch_build.py)."""

from typing import Final

IS_COMPILED: Final = not __file__.endswith(".py")
