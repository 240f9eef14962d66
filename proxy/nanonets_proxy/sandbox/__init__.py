"""A simulated Nanonets API with keys, limits, latency and faults, for users' own tests too."""
