"""Health of a worker: what is wrong, and how it is told."""
