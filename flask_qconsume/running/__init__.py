"""Workers: connections kept up, messages read, handled and settled. gevent lives
here."""
