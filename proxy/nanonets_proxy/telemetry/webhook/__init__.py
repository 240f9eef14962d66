"""Alerts as documents, sent to the operators' receiver."""
