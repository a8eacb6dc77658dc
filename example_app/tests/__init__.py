"""Tests of the shop: each part by itself, and the whole shop in a process."""
