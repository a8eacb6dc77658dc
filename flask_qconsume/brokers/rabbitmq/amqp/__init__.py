"""AMQP over a socket: frames, properties, and py-amqp with faster ones."""
