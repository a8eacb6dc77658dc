"""Processes of workers: the supervisor, its children, signals and exit codes."""
