"""What Redis does in one step: Lua, so that no message is in two places or in none.

Each script checks before it changes anything, and puts a message into its new place
before it takes it from the old one: an error half-way loses nothing. Those that only
move messages begin with writes that change nothing: they fail where a key is of another
type, and from then on Redis lets a script write even if it is out of memory, since
consuming is what makes room again.
"""

from __future__ import annotations

import hashlib
import typing as t
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field


@dataclass(frozen=True)
class Script:
    """A script that Redis knows by the hash of its text."""

    source: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.source.encode(), usedforsecurity=False)
        object.__setattr__(self, "sha", digest.hexdigest())

    def __call__(self, keys: Sequence[str], *arguments: t.Any) -> Call:
        """This script with its keys and arguments, to be sent."""
        return Call(self, (len(keys), *keys, *arguments))


@dataclass(frozen=True)
class Call:
    """One run of a script."""

    script: Script
    arguments: tuple[t.Any, ...]


#: The server's own time in seconds.
NOW = """
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
"""

#: Finds the error there is in putting something into keys of another type.
MISPLACED = """
local function misplaced(wanted)
  for _, key in ipairs(KEYS) do
    local found = redis.call('TYPE', key).ok
    if found ~= wanted and found ~= 'none' then
      return redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. found)
    end
  end
end
"""


#: How many dead letters there are. KEYS dead
COUNT = Script(
    NOW
    + """
return redis.call('ZCOUNT', KEYS[1], '(' .. string.format('%.17g', now), '+inf')
"""
)

#: A page of dead letters from a score on, with their scores, those still kept.
#: KEYS dead; ARGV lowest score, how many at most
PAGE = Script(
    NOW
    + """
local from = ARGV[1]
if from == '' then from = '(' .. string.format('%.17g', now) end
return redis.call('ZRANGEBYSCORE', KEYS[1], from, '+inf', 'WITHSCORES',
  'LIMIT', 0, ARGV[2])
"""
)
