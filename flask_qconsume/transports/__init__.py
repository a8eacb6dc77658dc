"""kombu transports of our own. They know AMQP, and nothing about consumers."""
