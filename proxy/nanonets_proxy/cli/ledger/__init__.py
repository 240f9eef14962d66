"""The commands that read the usage ledger: `usage` and `policy test`."""
