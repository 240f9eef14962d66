"""Compares the proxy's CPU per request, latency, memory and throughput with other proxies. `make bench` runs it."""
