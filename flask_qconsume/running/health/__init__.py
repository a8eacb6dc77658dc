"""Health of a worker: collect facts, judge them, log and report the verdict."""
