"""Observing: metrics, traces, and the message's context on each log line."""
