"""Tests of consumers in other servers."""
