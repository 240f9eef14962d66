"""The command line: parser, commands, and the process that runs each command."""
