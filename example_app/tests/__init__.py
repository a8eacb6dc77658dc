"""The shop's tests: each part by itself, and the whole in a process of its own."""
