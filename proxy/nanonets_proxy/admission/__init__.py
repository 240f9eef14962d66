"""The shell around the rate-limit gate: the waiting room, the state file, the handover at a restart, the fleet."""
