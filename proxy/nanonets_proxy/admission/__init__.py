"""The shell around the rate-limit gate: the waiting room and the state file."""
