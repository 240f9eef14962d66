"""Access decisions: which peers may connect, who a caller is, and what a caller may request."""
