"""Processes of workers: the supervisor, its child processes, signals and exit codes."""
