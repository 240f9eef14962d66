"""The life of the process: settings reader, hardening, serving, exit codes."""
