"""Observing: metrics, traces and log context of what an app consumes and publishes."""
