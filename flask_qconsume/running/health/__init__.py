"""Health of a worker: facts are collected, judged, logged and reported."""
