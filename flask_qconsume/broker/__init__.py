"""The interface that all brokers implement, and the code that they share."""
