"""A proxy beside a command: `nanonets-proxy run`."""
