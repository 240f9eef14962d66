"""The second listener: health and metrics."""
