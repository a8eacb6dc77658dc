"""What holds for every test: patched interpreter, deadline, nothing left behind."""
