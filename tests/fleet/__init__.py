"""Worker processes under test, and a ledger file of all that their handlers did."""
