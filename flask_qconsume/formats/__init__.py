"""Formats, which encode bodies as bytes and decode them, by content type.

All input is treated as hostile. Formats that can execute code (pickle, YAML) are left
out, although kombu supports them. Formats do not know brokers or consumers.
"""
