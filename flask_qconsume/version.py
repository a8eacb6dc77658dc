"""The version of this package. A module of its own, so that any module may import it.

The installed metadata has it, too, but an app may run from a copy of its packages
without metadata.
"""

from __future__ import annotations

VERSION = "0.1.0"
