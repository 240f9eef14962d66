"""One gate for many replicas: the leader decides, and the others ask it over Redis (docs/fleet-protocol.md)."""
