"""The confluent-kafka client, used from greenlets. Knows records, but no messages."""
