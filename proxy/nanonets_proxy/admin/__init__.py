"""The second listener: health, metrics, status, dashboard, reload."""
