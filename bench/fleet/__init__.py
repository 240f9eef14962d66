"""Benchmarks a fleet: a real Redis, real proxies, and one simulated limit for all (`make bench-fleet`)."""
