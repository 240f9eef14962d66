"""What a person types: commands, exit codes, checks."""
