"""One scope's adaptive limit: when its next request may go, and how long a refusal closes the scope."""
