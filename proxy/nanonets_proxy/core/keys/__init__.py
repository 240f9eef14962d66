"""API keys as values: which key a request uses, and what its response says about that key."""
