"""The app's own databases, through SQLAlchemy. Knows no gevent and no broker."""
