"""A broker inside the process, for trying out and for tests (``memory://``).

It does all that the others do, except outlive its process. kombu's own memory transport
is not used: its queues are global to the process, it polls once a second, it knows no
delays, and a message that was not settled vanishes with its channel.

Each app has a broker of its own; apps that say ``memory://name`` share one by name.
"""

from .broker import Memory

__all__ = ["Memory"]
