"""The composition root: builds running servers from a frozen configuration."""
