"""One gate for many replicas: the replica that leads decides, and the others ask it over Redis (docs/fleet.md)."""
