"""Transports for kombu, usable without Flask and without this package's consumers."""
