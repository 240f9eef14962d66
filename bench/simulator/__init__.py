"""A simulator of the gate and other policies against many kinds of limits: `make bench-gate`."""
