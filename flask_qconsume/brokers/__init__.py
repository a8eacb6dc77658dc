"""The kinds of brokers, a folder for each."""
