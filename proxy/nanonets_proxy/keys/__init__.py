"""Where API keys come from, and when they change."""
