"""How long a restart may take. A module of its own, since a command needs no server."""

from typing import Final

START_S: Final = 60.0
"""For the new process to be ready: it reads settings and keys, of which a store may take its time."""
GIVE_S: Final = 10.0
"""For the new process to serve what it gets."""
RESTART_S: Final = START_S + GIVE_S
