"""Integrations with other servers. Importing one does not import the server."""
