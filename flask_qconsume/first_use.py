"""Values that are made when they are needed first, and forks meanwhile.

A fork copies the thread that forks, and no other. A lock that another thread holds at
that moment stays locked in the child for ever, and so does Python's own lock of a
module that is being imported. So what is made on first use is made under one lock, for
which a fork waits: imports take a while, and have an end. Connecting may last, so
nothing connects under it; what connects belongs to its process, and a child makes its
own.
"""

from __future__ import annotations

import os
import threading
import time
import typing as t
import weakref
from collections.abc import Callable

T = t.TypeVar("T")

#: Seconds that a fork waits at the most for what :func:`delay_forks` asks for.
_LONGEST_DELAY = 2.0

_lock = threading.RLock()
#: By the monotonic clock, when a fork may happen.
_forks_from = 0.0
_all: weakref.WeakSet[PerProcess[t.Any]] = weakref.WeakSet()


class fork_safe_property(t.Generic[T]):
    """A property that is computed when it is read first, while no fork can happen.

    :class:`functools.cached_property` has a lock of its own until Python 3.12, which a
    fork copies.
    """

    def __init__(self, function: Callable[[t.Any], T]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @t.overload
    def __get__(self, instance: None, owner: type) -> fork_safe_property[T]: ...

    @t.overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(
        self, instance: object | None, owner: type
    ) -> fork_safe_property[T] | T:
        if instance is None:
            return self
        # Read from there next time, without coming by here.
        values = vars(instance)
        with _lock:
            if self._name not in values:
                values[self._name] = self._function(instance)
        return t.cast(T, values[self._name])


class PerProcess(t.Generic[T]):
    """A value that each process makes for itself when it needs it first.

    :param make: Makes it, without connecting to anything.
    :param leave: Called in a forked child with the parent's value, which the child
        neither uses nor destroys.
    """

    def __init__(
        self, make: Callable[[], T], leave: Callable[[T], object] = lambda value: None
    ) -> None:
        self._make = make
        self._leave = leave
        #: The value, or ``None`` as long as this process has not needed it.
        self.made: T | None = None
        self._left: list[T] = []
        _all.add(self)

    def get(self) -> T:
        """The value of this process."""
        found = self.made
        if found is not None:
            return found  # Without the lock, which costs each publish something.
        with _lock:
            if self.made is None:
                self.made = self._make()
            return self.made

    def take(self) -> T | None:
        """Remove and return the value of this process; :meth:`get` makes a new one."""
        value, self.made = self.made, None
        return value

    def leave_to_parent(self) -> None:
        """Begin anew, in a forked child."""
        value = self.take()
        if value is not None:
            self._left.append(value)
            self._leave(value)


def delay_forks(seconds: float) -> None:
    """Have forks wait until so many seconds from now are over. For any thread.

    For what locks something for a moment that a fork copies, and cannot be made under
    the lock here, since a thread of a library in C does it.
    """
    global _forks_from
    _forks_from = max(_forks_from, time.monotonic() + seconds)


def _await_fork() -> None:
    _lock.acquire()
    deadline = time.monotonic() + _LONGEST_DELAY
    # More may ask for a delay meanwhile.
    while (left := min(_forks_from, deadline) - time.monotonic()) > 0:
        time.sleep(left)


def _begin_anew() -> None:
    for each in list(_all):
        each.leave_to_parent()
    _lock.release()


os.register_at_fork(
    before=_await_fork, after_in_parent=_lock.release, after_in_child=_begin_anew
)
