"""Code shared by both brokers on Redis: kombu's lists, and streams."""
