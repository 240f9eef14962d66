"""A simulated Nanonets API with keys, rate limits, latency and failures, for tests of the proxy and its callers."""
