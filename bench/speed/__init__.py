"""What the proxy costs, beside others: CPU per request, latency, memory, throughput. `make bench`."""
