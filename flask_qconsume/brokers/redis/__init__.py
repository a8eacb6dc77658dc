"""Redis: what the layouts of both brokers share, lists and streams."""
