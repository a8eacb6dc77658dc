"""Workers: they keep connections up, and read, handle and settle messages. Only here,
and in functions of the command line and the integrations, gevent may be imported."""
