"""Integrations with other servers. Importing a module here imports no server."""
