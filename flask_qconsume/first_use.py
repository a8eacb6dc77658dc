"""Values that are created on first use, even if another thread forks at that time.

A fork copies only the thread that forks. A lock that another thread holds at that
moment stays locked in the child for ever; so does Python's lock of a module that is
being imported. Therefore values are created under one lock, for which a fork waits.
Imports may happen under that lock, since they end soon. Connecting may not, since it
can take long. A connection belongs to its process, and a forked child opens its own.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import typing as t
import weakref
from collections.abc import Callable

from .native_threads import get_unpatched

T = t.TypeVar("T")

#: Seconds that a fork, and under gevent its thread, waits at most because of
#: :func:`delay_forks`.
_LONGEST_DELAY = 2.0

#: For changes that other threads must not see half done. A fork waits for it, so hold
#: it for a moment only.
creation_lock = threading.RLock()
#: When a fork may happen, on :func:`time.monotonic`'s clock.
_forks_from = 0.0
_all: weakref.WeakSet[PerProcess[t.Any]] = weakref.WeakSet()


class fork_safe_property(t.Generic[T]):
    """A property that is computed once, at its first use; safe with forks.

    Before Python 3.12, :class:`functools.cached_property` has a lock of its own. A
    fork may copy that lock in its locked state.
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
        # Later reads find the value in the instance, and do not call this method.
        values = vars(instance)
        with creation_lock:
            if self._name not in values:
                values[self._name] = self._function(instance)
        return t.cast(T, values[self._name])


class PerProcess(t.Generic[T]):
    """A value that each process creates for itself, at the first use.

    :param make: Creates the value, without connecting to anything.
    :param leave: Called in a forked child with the parent's value. The child neither
        uses nor destroys that value.
    """

    def __init__(
        self, make: Callable[[], T], leave: Callable[[T], object] = lambda value: None
    ) -> None:
        self._make = make
        self._leave = leave
        #: The value, or ``None`` if this process has not created it yet.
        self.made: T | None = None
        #: Values of the parent process, kept so that they are not destroyed.
        self._left: list[T] = []
        _all.add(self)

    def get(self) -> T:
        """Return the value of this process; create it if necessary."""
        value = self.made
        if value is not None:
            return value  # The lock would make each publish slower.
        with creation_lock:
            if self.made is None:
                self.made = self._make()
            return self.made

    def take(self) -> T | None:
        """Remove the value of this process, and return it; ``None`` without a value."""
        value, self.made = self.made, None
        return value

    def leave_to_parent(self) -> None:
        """In a forked child: forget the parent's value without destroying it."""
        value = self.take()
        if value is not None:
            self._left.append(value)
            self._leave(value)


class ForkGuard:
    """Tells whether this process was forked after the guard was created.

    A forked child has copies of all greenlets (under gevent, threads are greenlets,
    too). These copies should not run in the child.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()

    @property
    def is_forked(self) -> bool:
        """Whether this process is a forked child."""
        return os.getpid() != self._pid

    def block_if_forked(self) -> None:
        """In a forked child: block this thread for ever, as it is only a copy.

        If the copy ended instead, :mod:`threading`, which has forgotten the thread,
        would raise an error.
        """
        if self.is_forked:
            threading.Event().wait()


def delay_forks(seconds: float) -> None:
    """Make forks of this process wait for some seconds; safe in any thread.

    A C library may hold a lock in a thread of its own for a moment, and a fork would
    copy it locked. The lock of this module cannot prevent that.
    """
    global _forks_from
    _forks_from = max(_forks_from, time.monotonic() + seconds)


def _await_fork() -> None:
    creation_lock.acquire()
    deadline = time.monotonic() + _LONGEST_DELAY
    # Another thread may ask for a longer delay meanwhile. gevent's 'sleep' would let an
    # error be thrown in, such as a handler's time limit, and Python drops errors here.
    while (seconds_left := min(_forks_from, deadline) - time.monotonic()) > 0:
        get_unpatched("time", "sleep")(seconds_left)


def _handle_ends_of_children() -> None:
    """Under gevent: handle SIGCHLD before the fork; ``os.fork`` does so after it.

    A child can end in between. ``os.waitpid`` would then wait for it for ever.
    """
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_object_patched("os", "waitpid"):
        sys.modules["gevent"].get_hub().loop.install_sigchld()


def _abandon_all() -> None:
    for value in list(_all):
        value.leave_to_parent()
    creation_lock.release()


os.register_at_fork(
    before=_await_fork,
    after_in_parent=creation_lock.release,
    after_in_child=_abandon_all,
)
os.register_at_fork(before=_handle_ends_of_children)
