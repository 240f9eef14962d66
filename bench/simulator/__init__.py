"""The gate against every kind of limit, in virtual time: `make bench-gate`."""
