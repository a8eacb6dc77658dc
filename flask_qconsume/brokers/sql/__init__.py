"""Brokers in SQL tables: SQLite and PostgreSQL, through SQLAlchemy.

A message is one row for each queue that it goes to. The row waits while its ``owner``
is null. While a worker has the message, ``owner`` is the number of that worker's link.
An acknowledgement deletes the row. All statements of this folder work on both
databases; :mod:`.sqlite` and :mod:`.postgresql` execute them.
"""
