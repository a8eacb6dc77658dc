"""AMQP over a socket: py-amqp's connection, with frames and properties of our own."""
