"""Kafka's own client, used from greenlets. Knows no message of the app."""
