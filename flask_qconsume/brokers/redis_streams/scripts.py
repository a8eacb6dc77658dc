"""Lua scripts for streams (Redis 6.2 and later); Redis runs each of them in one step.

An entry that was read is *pending*: Redis records which consumer of the group has it.
Each link is one consumer. Two more consumers have no link: ``released`` owns the
entries that links gave back, ``lost`` those with an expired lease. The entries of both
are read before new ones, in order, and only those of ``lost`` are marked as
redelivered. So giving back copies nothing and keeps the order; and since Redis stores
the owner of an entry, the difference between a crash and a clean stop is stored, too.

Each script puts a message into its new place before it takes it out of the old one.
Scripts that only move messages begin with a write that changes nothing; after it, Redis
lets them write even if its memory is full. A missing group (after a ``FLUSHALL``, or a
failover that lost it) is created again, from the first entry on.

Newer commands do not help. ``XAUTOCLAIM`` and ``XREADGROUP … CLAIM`` would treat
entries that were given back as lost. ``XACKDEL`` keeps an entry that is not pending any
more because the group was created again, and it would be read twice.
"""

from __future__ import annotations

from ..redis.scripts import COUNT_DEAD
from ..redis.scripts import COUNT_DELAYED
from ..redis.scripts import FIND_MISPLACED
from ..redis.scripts import NOW
from ..redis.scripts import Script

# Scripts raise errors again with level 0, so that Lua does not put the line number
# before the error's code.

# Runs a command on a stream's group, and creates a missing group.
_RUN_ON_GROUP = """
local function ask(key, group, ...)
  local found = redis.pcall(...)
  if type(found) == 'table' and found.err then
    if not string.find(found.err, 'NOGROUP', 1, true) then error(found.err, 0) end
    redis.call('XGROUP', 'CREATE', key, group, '0', 'MKSTREAM')
    found = redis.call(...)
  end
  return found
end
"""

# ``pending`` returns a consumer's entries of a stream, none if the group is missing;
# ``claim`` gives entries to a consumer.
_PENDING = """
local function pending(key, group, from, to, count, consumer)
  local found = redis.pcall('XPENDING', key, group, from, to, count, consumer)
  if not found.err then return found end
  if string.find(found.err, 'NOGROUP', 1, true) then return {} end
  error(found.err, 0)
end
local function claim(key, group, consumer, ids)
  if #ids == 0 then return end
  ids[#ids + 1] = 'JUSTID'
  redis.call('XCLAIM', key, group, consumer, 0, unpack(ids))
end
"""

#: Moves delayed messages that are due into the streams, then takes up to ``room``
#: entries, those of the first stream first.
#: KEYS delayed, streams…
#: ARGV group, consumer, room, bytes, body field, meta field, steps…
#: Returns the seconds until the next delayed message is due (or ''), and two texts. The
#: first has a line for each entry: its tag (the stream's number, from 0 on, and the
#: id), 1 if it is redelivered, and the lengths of its fields. The second has the
#: fields, one after the other. (Clients take long to parse an answer of many elements.)
POP = Script(
    NOW
    + _RUN_ON_GROUP
    + """
redis.call('ZREM', KEYS[1], '')
local group, me = ARGV[1], ARGV[2]
local room, bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 200)
for _, member in ipairs(due) do
  local _, stop, step, size = string.find(member, '^(%d+):(%d+):')
  local key = KEYS[#KEYS]
  for i = 2, #KEYS do if ARGV[i + 5] == step then key = KEYS[i] end end
  stop, size = stop or 0, tonumber(size or 0)
  redis.call('XADD', key, '*', ARGV[5], string.sub(member, stop + size + 1),
    ARGV[6], string.sub(member, stop + 1, stop + size))
  redis.call('ZREM', KEYS[1], member)
end
local soon = ''
local nearest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if nearest[2] then soon = tostring(nearest[2] - now) end
local heads, parts, largest, want = {}, {}, 0, 1
local stream
local function give(entry, mark)
  local size, fields, last = 0, entry[2], #heads + 3
  heads[last - 2], heads[last - 1], heads[last] = stream, entry[1], mark
  for i = 1, #fields do
    local field = fields[i]
    parts[#parts + 1] = field
    heads[last + 1], heads[last + 2] = ' ', #field
    size, last = size + #field, last + 2
  end
  heads[last + 1] = '\\n'
  room, bytes, largest = room - 1, bytes - size, math.max(largest, size)
end
local function owned(number, owner, mark)
  local key = KEYS[number]
  local found = ask(key, group, 'XPENDING', key, group, '-', '+',
    math.min(want, room), owner)
  if #found == 0 then return false end
  for _, each in ipairs(found) do
    local entry = redis.call('XCLAIM', key, group, me, 0, each[1])[1]
    if entry and entry[2] then
      give(entry, mark)
    else
      redis.call('XACK', key, group, each[1])
    end
  end
  return true
end
local function fresh(number)
  local key = KEYS[number]
  local found = ask(key, group, 'XREADGROUP', 'GROUP', group, me,
    'COUNT', math.min(want, room), 'STREAMS', key, '>')
  if not found or not found[1] then return false end
  for _, entry in ipairs(found[1][2]) do give(entry, ' 0') end
  return true
end
for number = 2, #KEYS do
  stream = number - 2 .. ':'
  for turn = 1, 3 do
    while room > 0 and bytes > 0 do
      local more
      if turn == 1 then more = owned(number, 'released', ' 0')
      elseif turn == 2 then more = owned(number, 'lost', ' 1')
      else more = fresh(number) end
      if not more then break end
      want = math.max(1, math.min(100, math.floor(bytes / (largest + 1))))
    end
  end
end
return {soon, table.concat(heads), table.concat(parts)}
"""
)

#: Returns the seconds until there is a message that does not end a wait for new
#: entries; '' if there is none. KEYS delayed, streams…; ARGV group
FIND_UNNOTICED = Script(
    NOW
    + _PENDING
    + """
for i = 2, #KEYS do
  for _, owner in ipairs({'released', 'lost'}) do
    if #pending(KEYS[i], ARGV[1], '-', '+', 1, owner) > 0 then return '0' end
  end
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
return first and string.format('%.6f', math.max(0, first - now)) or ''
"""
)

#: Deletes handled entries; returns how many of them were still pending.
#: KEYS stream; ARGV group, the ids as one text (clients take long to send many)
ACK = Script(
    """
local ids = {}
for id in string.gmatch(ARGV[2], '%S+') do ids[#ids + 1] = id end
local known = redis.call('XACK', KEYS[1], ARGV[1], unpack(ids))
redis.call('XDEL', KEYS[1], unpack(ids))
return known
"""
)

# Claims all pending entries of a consumer for another one, or for the same again.
_CLAIM_ALL = """
local function claim_all(key, group, consumer, other)
  local from, count = '-', 0
  while true do
    local ids = {}
    for _, each in ipairs(pending(key, group, from, '+', 500, consumer)) do
      ids[#ids + 1] = each[1]
    end
    local last, size = ids[#ids], #ids
    claim(key, group, other, ids)
    count = count + size
    if size < 500 then return count end
    from = '(' .. last
  end
end
"""

#: Extends the leases of all entries of a consumer; returns how many.
#: KEYS streams…; ARGV group, consumer
EXTEND_LEASES = Script(
    _PENDING
    + _CLAIM_ALL
    + """
local count = 0
for _, key in ipairs(KEYS) do
  count = count + claim_all(key, ARGV[1], ARGV[2], ARGV[2])
end
return count
"""
)

#: Gives back all entries of a consumer, and deletes the consumer; returns how many.
#: KEYS streams…; ARGV group, consumer
RELEASE_ALL = Script(
    _PENDING
    + _CLAIM_ALL
    + """
local count = 0
for _, key in ipairs(KEYS) do
  count = count + claim_all(key, ARGV[1], ARGV[2], 'released')
  redis.pcall('XGROUP', 'DELCONSUMER', key, ARGV[1], ARGV[2])
end
return count
"""
)

#: Gives back some entries of a consumer; returns how many.
#: KEYS stream; ARGV group, consumer, 'released' or 'lost', ids…
RELEASE = Script(
    _PENDING
    + """
local ids = {}
for i = 4, #ARGV do
  if #pending(KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2]) > 0 then
    ids[#ids + 1] = ARGV[i]
  end
end
local count = #ids
claim(KEYS[1], ARGV[1], ARGV[3], ids)
return count
"""
)

#: Takes entries with an expired lease from other consumers, at most 1,000 at once, and
#: deletes consumers that have been idle for long. XAUTOCLAIM would also take entries
#: that were given back.
#: KEYS stream; ARGV group, consumer, lease and age of consumers in ms, from
#: Returns how many, and where to continue ('-' after the last entry).
RECLAIM = Script(
    _PENDING
    + """
local key, group, from, count = KEYS[1], ARGV[1], ARGV[5], 0
for page = 1, 10 do
  local found = redis.pcall(
    'XPENDING', key, group, 'IDLE', ARGV[3], from, '+', 100)
  if found.err then
    if string.find(found.err, 'NOGROUP', 1, true) then return {0, '-'} end
    error(found.err, 0)
  end
  local ids = {}
  for _, each in ipairs(found) do
    local owner = each[2]
    if owner ~= 'released' and owner ~= 'lost' and owner ~= ARGV[2] then
      ids[#ids + 1] = each[1]
    end
  end
  count = count + #ids
  claim(key, group, 'lost', ids)
  if #found < 100 then
    from = '-'
    break
  end
  from = '(' .. found[#found][1]
end
if from ~= '-' then return {count, from} end
local consumers = redis.pcall('XINFO', 'CONSUMERS', key, group)
for _, flat in ipairs(consumers.err and {} or consumers) do
  local about = {}
  for i = 1, #flat, 2 do about[flat[i]] = flat[i + 1] end
  if about.pending == 0 and about.idle > tonumber(ARGV[4]) then
    redis.call('XGROUP', 'DELCONSUMER', key, group, about.name)
  end
end
return {count, from}
"""
)

#: Returns entries of other consumers that have been pending for no time at all: since
#: this moment or, because the clock was set back, since a later one: owner, id, …
#: KEYS stream; ARGV group, consumer, how many of each owner at most
FIND_FUTURE_LEASES = Script(
    _PENDING
    + """
local key, group, answer = KEYS[1], ARGV[1], {}
local consumers = redis.pcall('XINFO', 'CONSUMERS', key, group)
for _, flat in ipairs(consumers.err and {} or consumers) do
  local about = {}
  for i = 1, #flat, 2 do about[flat[i]] = flat[i + 1] end
  local owner = about.name
  local held = about.pending > 0 and about.idle == 0
  if held and owner ~= ARGV[2] and owner ~= 'released' and owner ~= 'lost' then
    for _, each in ipairs(pending(key, group, '-', '+', ARGV[3], owner)) do
      if each[3] == 0 then
        answer[#answer + 1] = owner
        answer[#answer + 1] = each[1]
      end
    end
  end
end
return answer
"""
)

#: Puts a copy into another key and deletes the entry, if the consumer still has it.
#: KEYS stream, and a stream or a sorted set
#: ARGV group, consumer, id, how ('', 'delay' or 'keep'), seconds, copy…
#: The copy is fields and values for a stream, a member for a sorted set.
FORWARD = Script(
    NOW
    + _PENDING
    + """
redis.call('XDEL', KEYS[1], '0-0')
local group, id = ARGV[1], ARGV[3]
if #pending(KEYS[1], group, id, id, 1, ARGV[2]) == 0 then return 0 end
if ARGV[4] == '' then
  redis.call('XADD', KEYS[2], '*', unpack(ARGV, 6))
else
  if ARGV[4] == 'keep' then redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now) end
  redis.call('ZADD', KEYS[2], now + ARGV[5], ARGV[6])
end
redis.call('XACK', KEYS[1], group, id)
redis.call('XDEL', KEYS[1], id)
return 1
"""
)

#: Puts a message into all of its queues, or into none of them.
#: KEYS streams, or sorted sets for a delay; ARGV delay or '', then a packed entry for
#: each of the sets, or fields and values for all streams.
PUBLISH = Script(
    NOW
    + FIND_MISPLACED
    + """
local wrong = misplaced(ARGV[1] == '' and 'stream' or 'zset')
if wrong then return wrong end
for i, key in ipairs(KEYS) do
  if ARGV[1] == '' then
    redis.call('XADD', key, '*', unpack(ARGV, 2))
  else
    redis.call('ZADD', key, now + ARGV[1], ARGV[i + 1])
  end
end
return 1
"""
)

# ``count`` returns how many entries of a stream wait, and how many are with a consumer.
_COUNT = """
local function count(key, group)
  local waiting, held = redis.call('XLEN', key), 0
  local found = redis.pcall('XPENDING', key, group)
  for _, owner in ipairs(not found.err and found[4] or {}) do
    if owner[1] ~= 'released' and owner[1] ~= 'lost' then held = held + owner[2] end
  end
  return math.max(0, waiting - held), held
end
local function count_all(keys, group)
  local waiting, held = 0, 0
  for _, key in ipairs(keys) do
    local more, with_consumers = count(key, group)
    waiting, held = waiting + more, held + with_consumers
  end
  return waiting, held
end
"""

#: Returns how many entries wait. KEYS streams…; ARGV group
COUNT_ENTRIES = Script(_COUNT + "return (count_all(KEYS, ARGV[1]))")

# ``oldest`` returns the id of a stream's oldest waiting entry, if there is one;
# ``earlier`` returns whether the first of two ids is the smaller one.
_OLDEST = """
local function earlier(id, than)
  local time, number = string.match(id, '(%d+)-(%d+)')
  local other, another = string.match(than, '(%d+)-(%d+)')
  time, number = tonumber(time), tonumber(number)
  other, another = tonumber(other), tonumber(another)
  return time < other or (time == other and number < another)
end
local function oldest(key, group)
  local last, found = '-', nil
  local function look(first)
    if first and not (found and earlier(found, first[1])) then found = first[1] end
  end
  local groups = redis.pcall('XINFO', 'GROUPS', key)
  for _, flat in ipairs(groups.err and {} or groups) do
    local about = {}
    for i = 1, #flat, 2 do about[flat[i]] = flat[i + 1] end
    if about.name == group then last = '(' .. about['last-delivered-id'] end
  end
  for _, owner in ipairs(last == '-' and {} or {'released', 'lost'}) do
    look(redis.call('XPENDING', key, group, '-', '+', 1, owner)[1])
  end
  look(redis.call('XRANGE', key, last, '+', 'COUNT', 1)[1])
  return found
end
local function fields(key, id)
  local entry = id and redis.call('XRANGE', key, id, id)[1]
  return entry and entry[2] or {}
end
"""

#: Returns the fields and values of a stream's oldest waiting entry, if there is one.
#: KEYS stream; ARGV group
FIND_OLDEST = Script(_OLDEST + "return fields(KEYS[1], oldest(KEYS[1], ARGV[1]))")

#: Counts the messages of a queue. KEYS delayed, dead, suspects, streams…
#: ARGV group, bytes of a suspect at most
#: Returns the numbers of messages that wait, are delayed and in hand, of suspects and
#: of dead letters; since when the first delayed message is due; the ids of the oldest
#: waiting entries of the streams, and the fields and values of the oldest suspect.
READ_STATUS = Script(
    COUNT_DEAD
    + COUNT_DELAYED
    + _COUNT
    + _OLDEST
    + """
local due, delayed, since = count_delayed(KEYS[1])
local group, streams, ids = ARGV[1], {unpack(KEYS, 4)}, {}
local waiting, held = count_all(streams, group)
local suspects, held_suspects = count(KEYS[3], group)
for _, key in ipairs(streams) do ids[#ids + 1] = oldest(key, group) end
local suspect = fields(KEYS[3], oldest(KEYS[3], group))
local size = 0
for _, field in ipairs(suspect) do size = size + #field end
return {
  {waiting + due, delayed, held + held_suspects, suspects, count_dead(KEYS[2])},
  since or '', ids, size <= tonumber(ARGV[2]) and suspect or {}
}
"""
)

#: Removes a dead letter, and puts the copy, if any, into the stream; returns 1, or 0 if
#: the dead letter is gone already.
#: KEYS dead, stream; ARGV dead letter, fields and values…
TAKE_DEAD_LETTER = Script(
    """
redis.call('ZREM', KEYS[1], '')
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
if ARGV[2] then redis.call('XADD', KEYS[2], '*', unpack(ARGV, 2)) end
redis.call('ZREM', KEYS[1], ARGV[1])
return 1
"""
)
