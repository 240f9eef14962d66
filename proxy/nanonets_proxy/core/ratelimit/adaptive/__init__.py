"""One scope's adaptive limit: when its next request may go, and what the upstream's refusals teach."""
