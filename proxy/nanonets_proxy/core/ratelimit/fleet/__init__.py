"""What replicas of one fleet tell each other about the gate: names, shares and logs of grants (docs/fleet.md)."""
