"""One environment: a key, a gate, connections to the upstream and listeners, built from one configuration."""
