"""What is known about one scope's limit: the estimate, and what probes and refusals teach it."""
