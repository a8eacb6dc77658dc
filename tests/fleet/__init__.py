"""Worker processes under test, and a ledger outside of them that says what they did."""
