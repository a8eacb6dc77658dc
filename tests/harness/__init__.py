"""Rules for every test: patched interpreter, deadline, nothing left running."""
