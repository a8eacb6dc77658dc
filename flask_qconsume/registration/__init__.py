"""Registration of consumers, hooks and error handlers. No I/O, no gevent."""
