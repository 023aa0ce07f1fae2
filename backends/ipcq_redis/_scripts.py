"""The operations of queues: one Lua script each, which the server runs in one step.

A queue's keys have one hash tag, so that a cluster keeps them together::

    ipcq:{name}             a hash: incarnation, limits, and `kept`, the figures that change
    ipcq:{name}:ID:data     a list of messages, or a hash of them by their ids
    ipcq:{name}:ID:ready    the ids of ready messages; leased, delayed and dead likewise, by what orders them
    ipcq:{name}:ID:notes    what is known of each message that was ever leased
    ipcq:{name}:ID:tokens   the id of each leased message by the token of its lease
    ipcq:{name}:ID:news     a stream with one entry: the last change for consumers that wait
    ipcq:{name}:ID:space    the same for producers
    ipcq:{name}:ID:lane:N   the last reply to one sequence of operations, for a minute

ID is the queue's incarnation. A list keeps messages in order; only with priorities or leases they have ids. An id is
the priority, inverted, and the message's number, with leading zeros: the order of ids is the order of gets.

*Once.* The operations of a lane have rising numbers. The server keeps the last reply of each lane, and repeats it to
another attempt of the same operation. It refuses an operation that is older than the last one, and one that arrives
after its client has given it up.

*Memory.* A server that is out of memory refuses commands that write, from the first one of a script on. So each script
writes its reply first, and takes messages last.

*Waiting.* A script that finds nothing to take, or no space, returns the number of the last change. The client waits for
a later entry of the stream. Such an entry is written only while somebody waits.
"""

from typing import Final, NamedTuple

#: Seconds for which the server keeps the last reply of a lane.
KEPT_SECONDS: Final = 60
#: Seconds for which the server tells a client of changes after it found nothing to take, or no space.
TOLD_SECONDS: Final = 10
#: The most words of a command in a script: Lua passes at most 8,000.
_WORDS: Final = 1000
#: Version of the layout.
LAYOUT: Final = "1"

#: The suffixes of a queue's keys, in the order of the scripts' arguments.
PLAIN_KEYS: Final = ("data", "news", "space")
CELL_KEYS: Final = (*PLAIN_KEYS, "ready")
LEASE_KEYS: Final = (*CELL_KEYS, "leased", "delayed", "dead", "notes", "tokens")


class Script(NamedTuple):
    """A script."""

    text: str
    """Its program in Lua."""
    shrinking: bool = True
    """It frees memory in the end, so it runs also if the server is out of memory."""


#: The figures of a queue that change, in the order in which its hash has them: numbers in MessagePack, as one value,
#: because each field costs as much as a small command. Waiting processes want to be told until `readers` and `writers`.
#: No hold or delay ends before `due`.
_FIGURES_KEPT: Final = (
    "down",
    "number",
    "bytes",
    "charge",
    "bytes_put",
    "puts",
    "gets",
    "returned",
    "high",
    "readers",
    "writers",
    "news",
    "space",
    "due",
)
_KEPT: Final = ", ".join(_FIGURES_KEPT)
#: All of them are 0.
NOTHING_YET: Final = bytes(len(_FIGURES_KEPT))

_BEGIN: Final = f"""
local meta, lane, data, news_stream, space_stream = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local incarnation, turn = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if now > tonumber(ARGV[3]) then return {{'late'}} end
if turn ~= '' then
  local last = redis.call('GETRANGE', lane, 0, 15)
  if last == turn then return cmsgpack.unpack(string.sub(redis.call('GET', lane), 17)) end
  if last ~= '' and tonumber(last) > tonumber(turn) then return {{'late'}} end
end
local function text(figure) return string.format('%.0f', figure) end
local function remember(reply)
  if turn ~= '' then redis.call('SET', lane, turn .. cmsgpack.pack(reply), 'PX', '{KEPT_SECONDS * 1000}') end
  return reply
end
"""

_QUEUE: Final = f"""
local found = redis.call('HMGET', meta, 'incarnation', 'kept', 'max_messages', 'buffer_size', 'max_deliveries')
if found[1] ~= incarnation then return {{'gone'}} end
local max_messages, buffer_size, max_deliveries = tonumber(found[3]), tonumber(found[4]), tonumber(found[5])
local {_KEPT} = cmsgpack.unpack(found[2])
local function save() redis.call('HSET', meta, 'kept', cmsgpack.pack({_KEPT})) end
local function wake_readers()
  news = news + 1
  redis.call('XADD', news_stream, 'MAXLEN', '1', text(news) .. '-1', 'x', '')
end
local function wake_writers()
  space = space + 1
  redis.call('XADD', space_stream, 'MAXLEN', '1', text(space) .. '-1', 'x', '')
end
local function await_news()
  if readers < now + {TOLD_SECONDS * 500_000} then
    readers = now + {TOLD_SECONDS * 1_000_000}
    redis.pcall('HSET', meta, 'kept', cmsgpack.pack({_KEPT}))
  end
end
local function await_space()
  if writers < now + {TOLD_SECONDS * 500_000} then
    writers = now + {TOLD_SECONDS * 1_000_000}
    redis.pcall('HSET', meta, 'kept', cmsgpack.pack({_KEPT}))
  end
end
local function left(items)
  for _, item in ipairs(items) do
    bytes = bytes - #item
    charge = charge - math.max(#item, 1)
  end
  gets = gets + #items
end
local function each(command, key, words)
  for from = 1, #words, {_WORDS} do
    redis.call(command, key, unpack(words, from, math.min(from + {_WORDS - 1}, #words)))
  end
end
local function next_due() return -1 end
"""

_LIST: Final = """
local function places() return redis.call('LLEN', data) end
local ready_count = places
local function ended() return down == 1 and ready_count() == 0 end
local function store(first, priority, items) each('RPUSH', data, items) end
local function first(limit, most)
  local items, size = {}, 0
  while #items < limit and size < most do
    local part = redis.call('LRANGE', data, #items, math.min(#items + 64, limit) - 1)
    if #part == 0 then break end
    for _, item in ipairs(part) do
      items[#items + 1] = item
      size = size + #item
      if size >= most then break end
    end
  end
  return {}, items, {}
end
local function take(ids, items)
  if #items == 1 then redis.call('LPOP', data) else redis.call('LTRIM', data, #items, -1) end
end
"""

_CELLS: Final = """
local ready = KEYS[6]
local function places() return redis.call('HLEN', data) end
local function ready_count() return redis.call('ZCARD', ready) end
local function ended() return down == 1 and ready_count() == 0 end
local function id_of(number, priority) return string.format('%05.0f%016.0f', 32767 - priority, number) end
local function priority_of(id) return 32767 - tonumber(string.sub(id, 1, 5)) end
local function number_of(id) return tonumber(string.sub(id, 6)) end
local function store(first, priority, items)
  local cells, entries = {}, {}
  for place, item in ipairs(items) do
    local id = id_of(first + place - 1, priority)
    cells[2 * place - 1], cells[2 * place] = id, item
    entries[2 * place - 1], entries[2 * place] = '0', id
  end
  each('HSET', data, cells)
  each('ZADD', ready, entries)
end
local function read(ids)
  local items = {}
  for from = 1, #ids, 64 do
    for _, item in ipairs(redis.call('HMGET', data, unpack(ids, from, math.min(from + 63, #ids)))) do
      if not item then error('IPCQ a message is missing') end
      items[#items + 1] = item
    end
  end
  return items
end
local function first(limit, most)
  local ids, items, priorities, size = {}, {}, {}, 0
  while #ids < limit and size < most do
    local part = redis.call('ZRANGE', ready, #ids, math.min(#ids + 64, limit) - 1)
    if #part == 0 then break end
    for place, item in ipairs(read(part)) do
      local id = part[place]
      ids[#ids + 1], items[#items + 1], priorities[#priorities + 1] = id, item, priority_of(id)
      size = size + #item
      if size >= most then break end
    end
  end
  return ids, items, priorities
end
local function forget(ids) each('HDEL', data, ids) end
local function take(ids)
  each('ZREM', ready, ids)
  forget(ids)
end
"""

_LEASES: Final = """
local leased, delayed, dead, notes, tokens = KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11]
local function note_of(id)
  local packed = redis.call('HGET', notes, id)
  if packed then return cmsgpack.unpack(packed) end
  return {0, 0, '', 0, ''}
end
local function keep(id, note) redis.call('HSET', notes, id, cmsgpack.pack(note)) end
local DELIVERIES, FAILURES, TOKEN, SINCE, REASON = 1, 2, 3, 4, 5
local plain_forget = forget
forget = function(ids)
  each('HDEL', notes, ids)
  plain_forget(ids)
end
ended = function()
  return down == 1 and ready_count() + redis.call('ZCARD', leased) + redis.call('ZCARD', delayed) == 0
end
local function first_due()
  local first = 0
  for _, key in ipairs({leased, delayed}) do
    local at = tonumber(redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2] or '0')
    if at > 0 and (first == 0 or at < first) then first = at end
  end
  return first
end
next_due = function()
  local first = first_due()
  return first == 0 and -1 or math.max(first - now, 0)
end
local fresh, changed = false, false
local function plan(key, id, delay)
  redis.call('ZADD', key, text(now + delay), id)
  if due == 0 or now + delay < due then due, changed = now + delay, true end
  if delay < 3000000 then fresh = true end
end
local function put_back(id, delay)
  if delay > 0 then return plan(delayed, id, delay) end
  redis.call('ZADD', ready, '0', id)
  fresh = true
end
local function bury(id) redis.call('ZADD', dead, text(number_of(id)), id) end
local function end_lease(id, note)
  redis.call('HDEL', tokens, note[TOKEN])
  redis.call('ZREM', leased, id)
  note[TOKEN] = ''
end
local function release(id, note, delay)
  end_lease(id, note)
  keep(id, note)
  put_back(id, delay)
  returned, changed = returned + 1, true
end
local function fail(id, note, delay, reason)
  end_lease(id, note)
  note[FAILURES] = note[FAILURES] + 1
  note[REASON] = reason
  keep(id, note)
  if max_deliveries > 0 and note[FAILURES] >= max_deliveries then bury(id) else put_back(id, delay) end
  returned, changed = returned + 1, true
end
local function settled()
  if readers > now and (fresh or ended()) then
    wake_readers()
    changed = true
  end
  if changed then save() end
end
if due > 0 and due <= now then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', delayed, '-inf', text(now))) do
    put_back(id, 0)
    redis.call('ZREM', delayed, id)
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', leased, '-inf', text(now))) do
    fail(id, note_of(id), 0, 'its hold ended')
  end
  due, changed = first_due(), true
  settled()
  fresh, changed = false, false
end
"""

#: The messages of a batch of takes, with the size in bytes after which it ends.
_PUT: Final = """
if down == 1 then return {'down'} end
local priority, delay = tonumber(ARGV[4]), tonumber(ARGV[5])
local held = max_messages > 0 and places() or puts - gets
local items, size, cost = {}, 0, 0
for place = 6, #ARGV do
  local item = ARGV[place]
  local next_cost = cost + math.max(#item, 1)
  if max_messages > 0 and held + #items >= max_messages or buffer_size > 0 and charge + next_cost > buffer_size then
    break
  end
  items[#items + 1], size, cost = item, size + #item, next_cost
end
if #items == 0 then
  await_space()
  return {'full', space}
end
local first_number = number + 1
number = number + #items
local reply = remember({'ok', #items, number})
bytes, charge, bytes_put, puts = bytes + size, charge + cost, bytes_put + size, puts + #items
high = math.max(high, held + #items)
store(first_number, priority, items, delay)
if readers > now then wake_readers() end
save()
return reply
"""
_STORE_DELAYED: Final = """
local store_ready = store
store = function(first, priority, items, delay)
  if delay == 0 then return store_ready(first, priority, items) end
  for place, item in ipairs(items) do
    local id = id_of(first + place - 1, priority)
    redis.call('HSET', data, id, item)
    put_back(id, delay)
  end
end
"""
_GET: Final = """
local ids, items, priorities = first(tonumber(ARGV[4]), tonumber(ARGV[5]))
if #items == 0 then
  if ended() then return {'down'} end
  await_news()
  return {'none', news, next_due()}
end
local reply = remember({'ok', items, priorities})
left(items)
take(ids, items)
if writers > now then wake_writers() end
if readers > now and ended() then wake_readers() end
save()
return reply
"""
_PEEK: Final = """
local ids, items, priorities = first(1, 1)
if #items == 0 then return {ended() and 'down' or 'none'} end
return {'ok', items, priorities}
"""
_CLEAR: Final = """
local ids, items = first(places(), math.huge)
local reply = remember({'ok', #items})
left(items)
take(ids, items)
if writers > now then wake_writers() end
save()
return reply
"""
_DROP_DELAYED: Final = """
local function drop_all(key, ids)
  local items = read(ids)
  for _, id in ipairs(ids) do
    local note = note_of(id)
    if note[TOKEN] ~= '' then end_lease(id, note) end
    redis.call('ZREM', key, id)
  end
  left(items)
  forget(ids)
end
"""
_CLEAR_LEASES: Final = """
local some = redis.call('ZRANGE', ready, 0, -1)
local more = redis.call('ZRANGE', delayed, 0, -1)
local reply = remember({'ok', #some + #more})
drop_all(ready, some)
drop_all(delayed, more)
if writers > now then wake_writers() end
if readers > now and ended() then wake_readers() end
save()
return reply
"""
_SHUT_DOWN: Final = """
local reply = remember({'ok'})
down = 1
wake_readers()
wake_writers()
if ARGV[4] == '1' then
  local ids, items = first(places(), math.huge)
  left(items)
  take(ids, items)
end
save()
return reply
"""
_SHUT_DOWN_LEASES: Final = """
local reply = remember({'ok'})
down = 1
wake_readers()
wake_writers()
if ARGV[4] == '1' then
  for _, key in ipairs({ready, delayed, leased}) do drop_all(key, redis.call('ZRANGE', key, 0, -1)) end
end
save()
return reply
"""
_FIGURES: Final = """
return {'ok', ready_count(), bytes, bytes_put, puts, gets, high, returned, places(), charge}
"""
_WATCH: Final = """
if ARGV[4] == 'writers' then
  if down == 1 or (max_messages == 0 or places() < max_messages)
    and (buffer_size == 0 or charge + math.max(tonumber(ARGV[5]), 1) <= buffer_size) then return {'ok'} end
  await_space()
  return {'full', space}
end
if ready_count() > 0 or ended() then return {'ok'} end
await_news()
return {'none', news, next_due()}
"""
_UNLINK: Final = """
local reply = remember({'ok'})
wake_readers()
wake_writers()
redis.call('EXPIRE', news_stream, '10')
redis.call('EXPIRE', space_stream, '10')
redis.call('UNLINK', meta, data)
for place = 6, #KEYS do redis.call('UNLINK', KEYS[place]) end
return reply
"""
_CREATE: Final = """
local known = redis.call('HGET', meta, 'incarnation')
if known then return {known == incarnation and 'ok' or 'exists'} end
local changes = {'incarnation', incarnation}
for place = 4, #ARGV do changes[#changes + 1] = ARGV[place] end
redis.call('HSET', meta, unpack(changes))
return {'ok'}
"""

_LEASE: Final = """
local ids, items, priorities = first(tonumber(ARGV[4]), tonumber(ARGV[5]))
if #items == 0 then
  if ended() then return {'down'} end
  await_news()
  return {'none', news, next_due()}
end
local hold, owner, high_half, low_half = tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])
local deliveries, failures, known, held = {}, {}, {}, {}
for place, id in ipairs(ids) do
  local note = note_of(id)
  note[DELIVERIES], note[SINCE] = note[DELIVERIES] + 1, now
  note[TOKEN] = owner .. ':' .. token_of(high_half, low_half + place - 1)
  deliveries[place], failures[place] = note[DELIVERIES], note[FAILURES]
  known[2 * place - 1], known[2 * place] = id, cmsgpack.pack(note)
  held[2 * place - 1], held[2 * place] = note[TOKEN], id
end
local reply = remember({'ok', items, priorities, deliveries, failures, high_half, low_half, now + hold})
each('HSET', notes, known)
each('HSET', tokens, held)
for _, id in ipairs(ids) do plan(leased, id, hold) end
each('ZREM', ready, ids)
settled()
return reply
"""
#: A serial number has up to 63 bits, and a number in Lua 53, so it travels in two halves.
_SERIALS: Final = """
local function token_of(high_half, low_half)
  return text(high_half + math.floor(low_half / 4294967296)) .. ':' .. text(low_half % 4294967296)
end
"""
_RECALL: Final = """
local owner, high_half, low_half = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local ids = {}
if redis.call('HLEN', tokens) > 0 then
  for place = 0, tonumber(ARGV[7]) - 1 do
    local id = redis.call('HGET', tokens, owner .. ':' .. token_of(high_half, low_half + place))
    if id then ids[#ids + 1] = id end
  end
end
local reply = remember({'ok'})
for _, id in ipairs(ids) do release(id, note_of(id), 0) end
settled()
return reply
"""
_LEAVE: Final = """
local owner = ARGV[4] .. ':'
for _, id in ipairs(redis.call('ZRANGE', leased, 0, -1)) do
  local note = note_of(id)
  if string.sub(note[TOKEN], 1, #owner) == owner then release(id, note, 0) end
end
settled()
return {'ok'}
"""
_SETTLE: Final = """
local verdict, delay, reason = ARGV[4], tonumber(ARGV[5]), ARGV[6]
local ids, ended_tokens, lost, seen = {}, {}, {}, {}
for place = 7, #ARGV do
  local id = redis.call('HGET', tokens, ARGV[place])
  if id and not seen[id] then
    seen[id] = true
    ids[#ids + 1], ended_tokens[#ended_tokens + 1] = id, ARGV[place]
  else
    lost[#lost + 1] = place - 7
  end
end
local items = verdict == '0' and read(ids) or {}
local reply = remember({'ok', lost})
if #ids == 0 then
  settled()
  return reply
end
changed = true
if verdict == '0' then
  left(items)
  each('HDEL', tokens, ended_tokens)
  each('ZREM', leased, ids)
  forget(ids)
  if writers > now then wake_writers() end
else
  for _, id in ipairs(ids) do
    local note = note_of(id)
    if verdict == '1' then
      release(id, note, delay)
    elseif verdict == '2' then
      fail(id, note, delay, reason)
    else
      end_lease(id, note)
      note[REASON] = reason
      keep(id, note)
      bury(id)
    end
  end
end
settled()
return reply
"""
_EXTEND: Final = """
local hold, lost, ids = tonumber(ARGV[4]), {}, {}
for place = 5, #ARGV do
  local id = redis.call('HGET', tokens, ARGV[place])
  if id then ids[#ids + 1] = id else lost[#lost + 1] = place - 5 end
end
local reply = remember({'ok', lost})
for _, id in ipairs(ids) do plan(leased, id, hold) end
settled()
return reply
"""
_FIND_LOST: Final = """
local lost = {}
for place = 4, #ARGV do
  if redis.call('HEXISTS', tokens, ARGV[place]) == 0 then lost[#lost + 1] = place - 4 end
end
return {'ok', lost}
"""
_TEND: Final = "return {'ok', next_due()}\n"
_COUNTS: Final = """
return {'ok', ready_count(), redis.call('ZCARD', leased), redis.call('ZCARD', delayed), redis.call('ZCARD', dead)}
"""
_HELD: Final = """
local held = {}
for place, id in ipairs(redis.call('ZRANGE', leased, 0, -1)) do
  local note = note_of(id)
  held[place] = {note[SINCE], note[DELIVERIES]}
end
table.sort(held, function(one, other) return one[1] < other[1] end)
local reply = {}
for place = 1, math.min(#held, tonumber(ARGV[4])) do reply[place] = {now - held[place][1], held[place][2]} end
return {'ok', reply}
"""
_RECORD: Final = """
local function record(id)
  local note = note_of(id)
  return {read({id})[1], priority_of(id), note[DELIVERIES], note[REASON], number_of(id)}
end
"""
_GET_DEAD: Final = """
local ids, records = redis.call('ZRANGE', dead, 0, 0), {}
for place, id in ipairs(ids) do records[place] = record(id) end
local reply = remember({'ok', records})
drop_all(dead, ids)
if writers > now then wake_writers() end
save()
return reply
"""
_PEEK_DEAD: Final = """
local records = {}
local ids = redis.call('ZRANGEBYSCORE', dead, '(' .. ARGV[4], '+inf', 'LIMIT', '0', ARGV[5])
for place, id in ipairs(ids) do records[place] = record(id) end
return {'ok', records}
"""
_REQUEUE: Final = """
if down == 1 then return {'down'} end
local ids = redis.call('ZRANGE', dead, 0, tonumber(ARGV[4]) - 1)
local reply = remember({'ok', #ids})
for _, id in ipairs(ids) do
  local note = note_of(id)
  note[FAILURES], note[REASON] = 0, ''
  keep(id, note)
  put_back(id, 0)
  redis.call('ZREM', dead, id)
end
settled()
return reply
"""
_CLEAR_DEAD: Final = """
local ids = redis.call('ZRANGE', dead, 0, -1)
local reply = remember({'ok', #ids})
drop_all(dead, ids)
if writers > now then wake_writers() end
save()
return reply
"""

CREATE: Final = Script(_BEGIN + _CREATE, shrinking=False)
UNLINK: Final = Script(_BEGIN + _QUEUE + _UNLINK)


class Scripts:
    """The scripts of one kind of queues."""

    def __init__(self, kind: str) -> None:
        begin = _BEGIN + _QUEUE + kind
        self.put = Script(begin + _PUT, shrinking=False)
        self.get = Script(begin + _GET)
        self.peek = Script(begin + _PEEK)
        self.clear = Script(begin + _CLEAR)
        self.shut_down = Script(begin + _SHUT_DOWN)
        self.figures = Script(begin + _FIGURES)
        self.watch = Script(begin + _WATCH)


class LeaseScripts(Scripts):
    """The scripts of queues with leases."""

    def __init__(self) -> None:
        super().__init__(_CELLS + _LEASES)
        begin = _BEGIN + _QUEUE + _CELLS + _LEASES
        dropping, giving = begin + _DROP_DELAYED, begin + _SERIALS
        self.put = Script(begin + _STORE_DELAYED + _PUT, shrinking=False)
        self.clear = Script(dropping + _CLEAR_LEASES)
        self.shut_down = Script(dropping + _SHUT_DOWN_LEASES)
        self.lease = Script(giving + _LEASE)
        self.recall = Script(giving + _RECALL)
        self.leave = Script(begin + _LEAVE)
        self.settle = Script(begin + _SETTLE)
        self.extend = Script(begin + _EXTEND)
        self.find_lost = Script(begin + _FIND_LOST)
        self.tend = Script(begin + _TEND)
        self.counts = Script(begin + _COUNTS)
        self.held = Script(begin + _HELD)
        self.get_dead = Script(dropping + _RECORD + _GET_DEAD)
        self.peek_dead = Script(begin + _RECORD + _PEEK_DEAD)
        self.requeue = Script(begin + _REQUEUE, shrinking=False)
        self.clear_dead = Script(dropping + _CLEAR_DEAD)


LIST: Final = Scripts(_LIST)
CELLS: Final = Scripts(_CELLS)
LEASES: Final = LeaseScripts()
