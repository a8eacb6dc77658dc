"""How bodies are written and read."""
