"""What the app registers: consumers, hooks and error handlers. No I/O, no gevent."""
