"""Observing: metrics of an app's processes, and messages on their log lines."""
