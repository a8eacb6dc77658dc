"""A broker inside the process, for development and tests (``memory://``).

It does all that the other brokers do, but its messages end with the process. kombu's
own memory transport is not used: its queues are shared by the whole process, it polls
once a second, it has no delays, and an unsettled message is lost with its channel.

Each app has a broker of its own; apps with the same ``memory://name`` share one.
"""

from .broker import Memory

__all__ = ["Memory"]
