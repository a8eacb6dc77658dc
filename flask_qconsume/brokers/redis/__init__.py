"""Code that both layouts in Redis share: kombu's lists and streams."""
