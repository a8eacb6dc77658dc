"""Consumers hosted by other people's servers."""
