"""Formats: how bodies become bytes, and bytes become bodies, by their content type.

Everything that is decoded here is hostile input until it was decoded. Nothing that can
execute code (pickle, YAML) is among them, whatever kombu would accept. Knows no broker
and no consumer.
"""
