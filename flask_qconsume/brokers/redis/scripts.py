"""Lua scripts; Redis runs each in one step, so no failure leaves it half done.

Each script checks before it changes anything, and puts a message into its new place
before it takes it out of the old one: an error in the middle loses nothing. Scripts
that only move messages begin with writes that change nothing. These fail if a key has
another type. After them, Redis lets the script write even if its memory is full, since
consuming makes room.
"""

from __future__ import annotations

import hashlib
import typing as t
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field


@dataclass(frozen=True)
class Script:
    """A Lua script, which Redis caches under the hash of its text."""

    source: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.source.encode(), usedforsecurity=False)
        object.__setattr__(self, "sha", digest.hexdigest())

    def __call__(self, keys: Sequence[str], *arguments: t.Any) -> Call:
        """Return a call of this script with keys and arguments."""
        return Call(self, (len(keys), *keys, *arguments))


@dataclass(frozen=True)
class Call:
    """One call of a script: the script, its keys and its arguments."""

    script: Script
    arguments: tuple[t.Any, ...]


#: Sets ``now`` to the server's time in seconds.
NOW = """
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
"""

#: ``misplaced(type)`` returns an error if one of KEYS holds another type.
FIND_MISPLACED = """
local function misplaced(wanted)
  for _, key in ipairs(KEYS) do
    local found = redis.call('TYPE', key).ok
    if found ~= wanted and found ~= 'none' then
      return redis.error_reply('WRONGTYPE ' .. key .. ' is a ' .. found)
    end
  end
end
"""

#: Sets ``now``, and defines a function that counts dead letters that have not expired.
COUNT_DEAD = (
    NOW
    + """
local function count_dead(key)
  return redis.call('ZCOUNT', key, '(' .. string.format('%.17g', now), '+inf')
end
"""
)

#: Defines a function that returns how many delayed messages are due, how many are not
#: yet, and since when the first one is due, or nothing. (As soon as a worker runs, it
#: moves due messages to their queue.)
COUNT_DELAYED = """
local function count_delayed(key)
  local due = redis.call('ZCOUNT', key, '-inf', string.format('%.17g', now))
  local first = due > 0 and redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2] or nil
  return due, redis.call('ZCARD', key) - due, first
end
"""

#: Counts the dead letters that have not expired. KEYS dead
COUNT_DEAD_LETTERS = Script(COUNT_DEAD + "return count_dead(KEYS[1])")

#: Returns dead letters that have not expired, from a score on, with their scores.
#: KEYS dead; ARGV lowest score, how many at most
READ_DEAD_LETTERS = Script(
    NOW
    + """
local from = ARGV[1]
if from == '' then from = '(' .. string.format('%.17g', now) end
return redis.call('ZRANGEBYSCORE', KEYS[1], from, '+inf', 'WITHSCORES',
  'LIMIT', 0, ARGV[2])
"""
)
