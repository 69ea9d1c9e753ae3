"""The command line: how it is read, and what the commands do."""
