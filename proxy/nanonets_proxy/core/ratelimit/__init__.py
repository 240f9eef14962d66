"""The rate-limit gate: decides which request may go upstream and when."""
