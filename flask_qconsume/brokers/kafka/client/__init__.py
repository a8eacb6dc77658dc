"""Kafka's own client, used from greenlets. It knows no messages of the app."""
