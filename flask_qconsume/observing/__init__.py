"""Observing: metrics of what an app's processes consume and publish."""
