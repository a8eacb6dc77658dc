"""Brokers: connections, topology, deliveries. kombu lives here, gevent does not."""
