"""The example shop under load: its site beside its consumers, in one process."""
