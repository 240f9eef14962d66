"""The usage ledger: one row for each attempt, and roll-ups, in an SQLite file. Only this folder imports sqlite3."""
