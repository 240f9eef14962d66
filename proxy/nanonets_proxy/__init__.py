"""A local authenticating reverse proxy for the Nanonets document API."""

__version__ = "0.1.0"
