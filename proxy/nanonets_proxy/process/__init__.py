"""The life of the process: serving, reading the settings in a child, hardening."""
