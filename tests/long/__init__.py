"""The long proofs: every test here carries ``@pytest.mark.long``; ``tox -e long``."""
