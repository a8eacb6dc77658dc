"""Help for the tests of apps that use this extension."""
