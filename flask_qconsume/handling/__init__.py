"""Handling of one message: decoding, hooks, handler, outcome. No I/O, no gevent."""
