"""Lua scripts for kombu's lists; Redis runs each of them in one step."""

from __future__ import annotations

from ..redis.scripts import COUNT_DEAD
from ..redis.scripts import COUNT_DELAYED
from ..redis.scripts import FIND_MISPLACED
from ..redis.scripts import NOW
from ..redis.scripts import Script

_WRITE_THOUGH_FULL = """
redis.call('ZREM', KEYS[1], '')
redis.call('HDEL', KEYS[2], '')
redis.call('ZREM', KEYS[3], '')
"""

# Returns whether kombu can restore an element: it fails if the element is not JSON, and
# loses it if the usual mappings are missing. Decoding a large element would block Redis
# for some 20 ms per megabyte, so only its end is searched for the text of kombu.
_KNOWN_TO_KOMBU = """
local function known_to_kombu(item)
  if string.sub(item, 1, 1) ~= '{' then return false end
  if #item > 65536 then
    local tail = string.sub(item, -4096)
    return string.find(tail, '"properties": {', 1, true) ~= nil
      and string.find(tail, '"delivery_info": {', 1, true) ~= nil
      and string.sub(tail, -2) == '}}'
  end
  local ok, found = pcall(cjson.decode, item)
  return ok and type(found.headers) == 'table' and type(found.properties) == 'table'
    and type(found.properties.delivery_info) == 'table'
end
"""

#: Moves delayed messages that are due into the lists, then takes up to ``room``
#: messages, those of the first list first.
#: KEYS leases, unacked, index, delayed, lists…
#: ARGV room, bytes, tags' prefix, first number, lease, suffix, base, separator, steps…
#: Returns the seconds until the next delayed message is due (or ''), then tag,
#: element, …
POP = Script(
    NOW
    + _WRITE_THOUGH_FULL
    + _KNOWN_TO_KOMBU
    + """
local room, bytes, number = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
local base = ARGV[7]
for _, member in ipairs(
    redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now, 'LIMIT', 0, 200)) do
  local _, stop, step = string.find(member, '^(%d+):')
  local list = base
  if step and step ~= '0' then list = base .. ARGV[8] .. step end
  redis.call('LPUSH', list, string.sub(member, (stop or 0) + 1))
  redis.call('ZREM', KEYS[4], member)
end
local answer = {''}
local till, since = string.format('%.6f', now + ARGV[5]), string.format('%.6f', now)
local largest, want = 0, 1
for i = 5, #KEYS do
  while room > 0 and bytes > 0 do
    local items = redis.call('LRANGE', KEYS[i], -math.min(want, room), -1)
    if #items == 0 then break end
    local fields, leases, index = {}, {}, {}
    for j = #items, 1, -1 do
      local item = items[j]
      local tag = ARGV[3] .. string.format('%d', number) .. ':' .. ARGV[i + 4]
      fields[#fields + 1] = tag
      fields[#fields + 1] = '[' .. item .. ARGV[6]
      leases[#leases + 1] = till
      leases[#leases + 1] = tag
      if known_to_kombu(item) then
        index[#index + 1] = since
        index[#index + 1] = tag
      end
      answer[#answer + 1] = tag
      answer[#answer + 1] = item
      room, bytes, number = room - 1, bytes - #item, number + 1
      largest = math.max(largest, #item)
    end
    redis.call('HSET', KEYS[2], unpack(fields))
    redis.call('ZADD', KEYS[1], unpack(leases))
    if #index > 0 then redis.call('ZADD', KEYS[3], unpack(index)) end
    redis.call('LTRIM', KEYS[i], 0, -#items - 1)
    want = math.max(1, math.min(50, math.floor(bytes / (largest + 1))))
  end
end
local nearest = redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')
if nearest[2] then answer[1] = tostring(nearest[2] - now) end
return answer
"""
)

#: Returns the seconds until there is a message that does not end a wait at the first
#: list; '' if there is none. KEYS delayed, the other lists…
FIND_UNNOTICED = Script(
    NOW
    + """
for i = 2, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then return '0' end
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
return first and string.format('%.6f', math.max(0, first - now)) or ''
"""
)

#: Counts the messages of a queue. KEYS delayed, dead, leases of the queue and of its
#: suspects, lists of the queue…, lists of its suspects…
#: ARGV how many lists each of the two has, bytes of a whole element at most
#: Returns the numbers of messages that wait, are delayed and in hand, of suspects and
#: of dead letters; since when the first delayed message is due; the ends of the next
#: elements of the queue's lists, and the next elements of its suspects' lists.
READ_STATUS = Script(
    COUNT_DEAD
    + COUNT_DELAYED
    + """
local function read(first, last, size)
  local count, heads = 0, {}
  for i = first, last do
    count = count + redis.call('LLEN', KEYS[i])
    local head = redis.call('LINDEX', KEYS[i], -1)
    if head and size then head = string.sub(head, -size) end
    if head and #head <= tonumber(ARGV[2]) then heads[#heads + 1] = head end
  end
  return count, heads
end
local due, delayed, since = count_delayed(KEYS[1])
local last = 4 + ARGV[1]
local waiting, ends = read(5, last, 4096)
local suspects, heads = read(last + 1, #KEYS)
return {
  {waiting + due, delayed,
    redis.call('ZCARD', KEYS[3]) + redis.call('ZCARD', KEYS[4]),
    suspects, count_dead(KEYS[2])},
  since or '', ends, heads
}
"""
)

#: Deletes handled messages; returns how many of them were still held.
#: KEYS leases, unacked, index; ARGV tags…
ACK = Script(
    """
redis.call('ZREM', KEYS[1], unpack(ARGV))
redis.call('ZREM', KEYS[3], unpack(ARGV))
return redis.call('HDEL', KEYS[2], unpack(ARGV))
"""
)

#: Extends leases; returns how many.
#: KEYS leases, unacked, index; ARGV lease, tags…
EXTEND_LEASES = Script(
    NOW
    + _WRITE_THOUGH_FULL
    + """
local leases, index = {}, {}
for i = 2, #ARGV do
  leases[#leases + 1] = now + ARGV[1]
  leases[#leases + 1] = ARGV[i]
  index[#index + 1] = now
  index[#index + 1] = ARGV[i]
end
redis.call('ZADD', KEYS[3], 'XX', unpack(index))
return redis.call('ZADD', KEYS[1], 'XX', 'CH', unpack(leases))
"""
)

#: Puts messages back to the front of their lists; returns how many.
#: KEYS leases, unacked, index; ARGV suffix's length, base, separator, tags…
GIVE_BACK = Script(
    _WRITE_THOUGH_FULL
    + """
local count = 0
for i = 4, #ARGV do
  local value = redis.call('HGET', KEYS[2], ARGV[i])
  if value then
    local step = string.match(ARGV[i], ':(%d+)$')
    local list = ARGV[2]
    if step ~= '0' then list = list .. ARGV[3] .. step end
    redis.call('RPUSH', list, string.sub(value, 2, -1 - ARGV[1]))
    redis.call('HDEL', KEYS[2], ARGV[i])
    count = count + 1
  end
  redis.call('ZREM', KEYS[1], ARGV[i])
  redis.call('ZREM', KEYS[3], ARGV[i])
end
return count
"""
)

#: Returns messages with an expired lease, the last to expire first: tag, value, …
#: KEYS leases, unacked; ARGV how many at most, how many bytes
FIND_EXPIRED = Script(
    NOW
    + """
local answer, bytes = {}, tonumber(ARGV[2])
for _, tag in ipairs(
    redis.call('ZREVRANGEBYSCORE', KEYS[1], now, '-inf', 'LIMIT', 0, ARGV[1])) do
  if bytes <= 0 then break end
  local value = redis.call('HGET', KEYS[2], tag)
  if value then
    answer[#answer + 1] = tag
    answer[#answer + 1] = value
    bytes = bytes - #value
  else
    redis.call('ZREM', KEYS[1], tag)
  end
end
return answer
"""
)

#: Returns leases that end later than a lease that begins now: tag, end, …
#: KEYS leases; ARGV lease, how many at most
FIND_FUTURE_LEASES = Script(
    NOW
    + """
return redis.call('ZRANGEBYSCORE', KEYS[1],
  '(' .. string.format('%.17g', now + ARGV[1]), '+inf', 'WITHSCORES',
  'LIMIT', 0, ARGV[2])
"""
)

#: Ends leases that have not been extended since; returns how many.
#: KEYS leases; ARGV tag, end, …
END_LEASES = Script(
    NOW
    + """
local count = 0
for i = 1, #ARGV, 2 do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    redis.call('ZADD', KEYS[1], now, ARGV[i])
    count = count + 1
  end
end
return count
"""
)

#: Puts a message back, in the envelope given, unless its lease has been extended.
#: KEYS leases, unacked, index, list; ARGV tag, envelope
RESTORE = Script(
    NOW
    + _WRITE_THOUGH_FULL
    + """
local till = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not till or tonumber(till) > now then return 0 end
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return 0 end
redis.call('RPUSH', KEYS[4], ARGV[2])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
return 1
"""
)

#: Puts a copy into another key and deletes the message, if it is still held.
#: KEYS leases, unacked, index, place; ARGV tag, copy, '' | 'delay' | 'keep', seconds
FORWARD = Script(
    NOW
    + _WRITE_THOUGH_FULL
    + """
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return 0 end
if ARGV[3] == '' then
  redis.call('LPUSH', KEYS[4], ARGV[2])
else
  if ARGV[3] == 'keep' then redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now) end
  redis.call('ZADD', KEYS[4], now + ARGV[4], ARGV[2])
end
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
return 1
"""
)

#: Puts a message into all of its queues, or into none of them.
#: KEYS lists, or sorted sets for a delay; ARGV delay or '', envelopes…
PUBLISH = Script(
    NOW
    + FIND_MISPLACED
    + """
local wrong = misplaced(ARGV[1] == '' and 'list' or 'zset')
if wrong then return wrong end
for i, key in ipairs(KEYS) do
  if ARGV[1] == '' then
    redis.call('LPUSH', key, ARGV[i + 1])
  else
    redis.call('ZADD', key, now + ARGV[1], ARGV[i + 1])
  end
end
return 1
"""
)

#: Removes a dead letter, and puts the copy, if any, into the list; returns 1, or 0 if
#: the dead letter is gone already.
#: KEYS dead, list; ARGV dead letter, copy or ''
TAKE_DEAD_LETTER = Script(
    """
redis.call('ZREM', KEYS[1], '')
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
if ARGV[2] ~= '' then redis.call('LPUSH', KEYS[2], ARGV[2]) end
redis.call('ZREM', KEYS[1], ARGV[1])
return 1
"""
)
