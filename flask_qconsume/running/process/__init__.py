"""Processes of workers: their supervisor, their signals and their exit codes."""
