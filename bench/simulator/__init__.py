"""Simulates the gate and other gates against many kinds of limits, in virtual time: `make bench-gate`."""
