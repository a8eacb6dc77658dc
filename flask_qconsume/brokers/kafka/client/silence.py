"""For how long a client that was given records has confirmed none of them. No I/O."""

from __future__ import annotations

import time
from collections.abc import Callable


class UnconfirmedFor:
    """Begins with the first record that is not confirmed, and ends with any that is.

    A client that nobody sends by is not silent.

    :param patience: Seconds that it may last at the least.
    :param clock: Seconds, from any moment on.
    """

    def __init__(
        self, patience: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._patience = patience
        self._clock = clock
        self._since: float | None = None

    def begin(self) -> None:
        """A record is about to be sent."""
        if self._since is None:
            self._since = self._clock()

    def end(self) -> None:
        """A record was confirmed, or there is another client. For any thread."""
        self._since = None

    def is_too_long(self, timeout: float) -> bool:
        """Whether it lasts longer than is bearable, which is twice the time of a send.

        :param timeout: Seconds of a send.
        """
        since = self._since
        if since is None:
            return False
        return self._clock() - since >= max(self._patience, 2 * timeout)
