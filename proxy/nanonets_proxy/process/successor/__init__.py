"""How a process starts its successor, and what the two say to each other. `process/restart.py` has their states."""
