"""Durable jobs: requests that are stored before they are sent, and whose responses are kept (docs/jobs.md)."""
