"""The health of a worker: facts are collected and judged, and the verdict reported."""
