"""What replicas tell each other about the gate: names, shares and logs of grants (docs/fleet-protocol.md)."""
