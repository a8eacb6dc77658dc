"""Ready parts for other people's servers. Each imports its server's name only."""
