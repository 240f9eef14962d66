"""HTTP messages as values: header fields, targets, preferences, retry decisions."""
