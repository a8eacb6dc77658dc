"""AMQP over a socket: our own frames and properties, in py-amqp's connection."""
