"""The life of the process: settings reader, hardening, serving, restart, `run`, exit codes."""
