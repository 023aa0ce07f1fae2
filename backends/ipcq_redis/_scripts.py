"""The operations of queues: one Lua script each, which the server runs in one step.

A queue's keys have one hash tag, so that a cluster keeps them together::

    ipcq:{name}             a hash: incarnation, limits, figures, and how long waiting processes want to be told
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


_BEGIN: Final = f"""
local meta, lane, data, news, space = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local ready, leased, delayed, dead, notes, tokens = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11]
local incarnation, number = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if now > tonumber(ARGV[3]) then return {{'late'}} end
if number ~= '' then
  local last = redis.call('GETRANGE', lane, 0, 15)
  if last == number then return cmsgpack.unpack(string.sub(redis.call('GET', lane), 17)) end
  if last ~= '' and tonumber(last) > tonumber(number) then return {{'late'}} end
end
local function text(figure) return string.format('%.0f', figure) end
local function remember(reply)
  if number ~= '' then
    redis.call('SET', lane, number .. cmsgpack.pack(reply), 'PX', '{KEPT_SECONDS * 1000}')
  end
  return reply
end
"""

_QUEUE: Final = f"""
local names = {{'incarnation', 'down', 'max_messages', 'buffer_size', 'max_deliveries', 'number', 'bytes', 'charge',
  'bytes_put', 'puts', 'gets', 'returned', 'high', 'readers', 'writers', 'news', 'space'}}
local state = {{}}
for place, value in ipairs(redis.call('HMGET', meta, unpack(names))) do
  state[names[place]] = place > 1 and tonumber(value or '0') or value
end
if state.incarnation ~= incarnation then return {{'gone'}} end
local function set(...)
  local changes = {{}}
  for place, name in ipairs({{...}}) do
    changes[2 * place - 1] = name
    changes[2 * place] = text(state[name])
  end
  redis.call('HSET', meta, unpack(changes))
end
local function tell(name, stream)
  state[name] = state[name] + 1
  set(name)
  redis.call('XADD', stream, 'MAXLEN', '1', text(state[name]) .. '-1', 'x', '')
end
local function tell_readers() if state.readers > now then tell('news', news) end end
local function tell_writers() if state.writers > now then tell('space', space) end end
local function await(name)
  if state[name] < now + {TOLD_SECONDS * 500_000} then
    redis.pcall('HSET', meta, name, text(now + {TOLD_SECONDS * 1_000_000}))
  end
end
local function charge_of(item) return math.max(#item, 1) end
local function left(items)
  for _, item in ipairs(items) do
    state.bytes = state.bytes - #item
    state.charge = state.charge - charge_of(item)
  end
  state.gets = state.gets + #items
end
local function fits(places, charge)
  return (state.max_messages == 0 or places < state.max_messages)
    and (state.buffer_size == 0 or state.charge + charge <= state.buffer_size)
end
local function next_due() return -1 end
"""

_LIST: Final = """
local function places() return redis.call('LLEN', data) end
local ready_count = places
local function ended() return state.down == 1 and ready_count() == 0 end
local function store(number, priority, item) redis.call('RPUSH', data, item) end
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
local function take(ids, items) redis.call('LTRIM', data, #items, -1) end
"""

_CELLS: Final = """
local function places() return redis.call('HLEN', data) end
local function ready_count() return redis.call('ZCARD', ready) end
local function ended() return state.down == 1 and ready_count() == 0 end
local function id_of(number, priority) return string.format('%05.0f%016.0f', 32767 - priority, number) end
local function priority_of(id) return 32767 - tonumber(string.sub(id, 1, 5)) end
local function number_of(id) return tonumber(string.sub(id, 6)) end
local function store(number, priority, item)
  local id = id_of(number, priority)
  redis.call('HSET', data, id, item)
  redis.call('ZADD', ready, '0', id)
end
local function read(id)
  local item = redis.call('HGET', data, id)
  if not item then error('IPCQ a message is missing') end
  return item
end
local function first(limit, most)
  local ids, items, priorities, size = {}, {}, {}, 0
  while #ids < limit and size < most do
    local part = redis.call('ZRANGE', ready, #ids, math.min(#ids + 64, limit) - 1)
    if #part == 0 then break end
    for _, id in ipairs(part) do
      local item = read(id)
      ids[#ids + 1], items[#items + 1], priorities[#priorities + 1] = id, item, priority_of(id)
      size = size + #item
      if size >= most then break end
    end
  end
  return ids, items, priorities
end
local function forget(ids)
  for _, id in ipairs(ids) do redis.call('HDEL', data, id) end
end
local function take(ids, items)
  for _, id in ipairs(ids) do redis.call('ZREM', ready, id) end
  forget(ids)
end
"""

_LEASES: Final = """
local function note_of(id)
  local packed = redis.call('HGET', notes, id)
  if packed then return cmsgpack.unpack(packed) end
  return {0, 0, '', 0, ''}
end
local function keep(id, note) redis.call('HSET', notes, id, cmsgpack.pack(note)) end
local DELIVERIES, FAILURES, TOKEN, SINCE, REASON = 1, 2, 3, 4, 5
local plain_forget = forget
forget = function(ids)
  for _, id in ipairs(ids) do redis.call('HDEL', notes, id) end
  plain_forget(ids)
end
ended = function()
  return state.down == 1 and ready_count() + redis.call('ZCARD', leased) + redis.call('ZCARD', delayed) == 0
end
next_due = function()
  local due = -1
  for _, key in ipairs({leased, delayed}) do
    local entry = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
    if entry[2] and (due < 0 or tonumber(entry[2]) < due) then due = tonumber(entry[2]) end
  end
  return due < 0 and -1 or math.max(due - now, 0)
end
local fresh = false
local function announce(due)
  if due > 0 and due < 3000000 then fresh = true end
end
local function put_back(id, due)
  if due > 0 then
    redis.call('ZADD', delayed, text(now + due), id)
    announce(due)
  else
    redis.call('ZADD', ready, '0', id)
    fresh = true
  end
end
local function bury(id) redis.call('ZADD', dead, text(number_of(id)), id) end
local function end_lease(id, note)
  redis.call('HDEL', tokens, note[TOKEN])
  redis.call('ZREM', leased, id)
  note[TOKEN] = ''
end
local function release(id, note, due)
  end_lease(id, note)
  keep(id, note)
  put_back(id, due)
  state.returned = state.returned + 1
end
local function fail(id, note, due, reason)
  end_lease(id, note)
  note[FAILURES] = note[FAILURES] + 1
  note[REASON] = reason
  keep(id, note)
  if state.max_deliveries > 0 and note[FAILURES] >= state.max_deliveries then bury(id) else put_back(id, due) end
  state.returned = state.returned + 1
end
local function settled()
  if fresh or ended() then tell_readers() end
end
local late = redis.call('ZRANGEBYSCORE', delayed, '-inf', text(now))
for _, id in ipairs(late) do
  put_back(id, 0)
  redis.call('ZREM', delayed, id)
end
local over = redis.call('ZRANGEBYSCORE', leased, '-inf', text(now))
for _, id in ipairs(over) do fail(id, note_of(id), 0, 'its hold ended') end
if #over > 0 then set('returned') end
if #over + #late > 0 then
  settled()
  fresh = false
end
"""

#: The messages of a batch of takes, with the size in bytes after which it ends.
_PUT: Final = """
if state.down == 1 then return {'down'} end
local priority, delay = tonumber(ARGV[4]), tonumber(ARGV[5])
local held, size, charge, count = places(), 0, 0, 0
for place = 6, #ARGV do
  if not fits(held + count, charge + charge_of(ARGV[place])) then break end
  count = count + 1
  size = size + #ARGV[place]
  charge = charge + charge_of(ARGV[place])
end
if count == 0 then
  await('writers')
  return {'full', state.space}
end
local base = state.number
state.number = base + count
local reply = remember({'ok', count, state.number})
state.bytes, state.charge, state.bytes_put = state.bytes + size, state.charge + charge, state.bytes_put + size
state.puts, state.high = state.puts + count, math.max(state.high, held + count)
set('number', 'bytes', 'charge', 'bytes_put', 'puts', 'high')
for place = 1, count do store(base + place, priority, ARGV[5 + place], delay) end
tell_readers()
return reply
"""
_STORE_DELAYED: Final = """
local store_ready = store
store = function(number, priority, item, delay)
  if delay == 0 then return store_ready(number, priority, item) end
  local id = id_of(number, priority)
  redis.call('HSET', data, id, item)
  put_back(id, delay)
end
"""
_GET: Final = """
local ids, items, priorities = first(tonumber(ARGV[4]), tonumber(ARGV[5]))
if #items == 0 then
  if ended() then return {'down'} end
  await('readers')
  return {'none', state.news, next_due()}
end
local reply = remember({'ok', items, priorities})
left(items)
set('bytes', 'charge', 'gets')
tell_writers()
take(ids, items)
if ended() then tell_readers() end
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
set('bytes', 'charge', 'gets')
tell_writers()
take(ids, items)
return reply
"""
_DROP_DELAYED: Final = """
local function drop_all(key, ids)
  local items = {}
  for place, id in ipairs(ids) do
    items[place] = read(id)
    local note = note_of(id)
    if note[TOKEN] ~= '' then end_lease(id, note) end
    redis.call('ZREM', key, id)
  end
  left(items)
  forget(ids)
  return #ids
end
"""
_CLEAR_LEASES: Final = """
local some = redis.call('ZRANGE', ready, 0, -1)
local more = redis.call('ZRANGE', delayed, 0, -1)
local reply = remember({'ok', #some + #more})
drop_all(ready, some)
drop_all(delayed, more)
set('bytes', 'charge', 'gets')
tell_writers()
if ended() then tell_readers() end
return reply
"""
_SHUT_DOWN: Final = """
state.down = 1
local reply = remember({'ok'})
set('down')
tell('news', news)
tell('space', space)
if ARGV[4] == '1' then
  local ids, items = first(places(), math.huge)
  left(items)
  set('bytes', 'charge', 'gets')
  take(ids, items)
end
return reply
"""
_SHUT_DOWN_LEASES: Final = """
state.down = 1
local reply = remember({'ok'})
set('down')
tell('news', news)
tell('space', space)
if ARGV[4] == '1' then
  for _, key in ipairs({ready, delayed, leased}) do drop_all(key, redis.call('ZRANGE', key, 0, -1)) end
  set('bytes', 'charge', 'gets')
end
return reply
"""
_FIGURES: Final = """
return {'ok', ready_count(), state.bytes, state.bytes_put, state.puts, state.gets, state.high, state.returned,
  places(), state.charge}
"""
_WATCH: Final = """
if ARGV[4] == 'writers' then
  if state.down == 1 or fits(places(), math.max(tonumber(ARGV[5]), 1)) then return {'ok'} end
  await('writers')
  return {'full', state.space}
end
if ready_count() > 0 or ended() then return {'ok'} end
await('readers')
return {'none', state.news, next_due()}
"""
_UNLINK: Final = """
if redis.call('HGET', meta, 'incarnation') ~= incarnation then return {'gone'} end
local reply = remember({'ok'})
for place, name in ipairs({'news', 'space'}) do
  local last = tonumber(redis.call('HGET', meta, name) or '0')
  redis.call('XADD', KEYS[3 + place], 'MAXLEN', '1', string.format('%.0f-1', last + 1), 'x', '')
  redis.call('EXPIRE', KEYS[3 + place], '10')
end
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
  await('readers')
  return {'none', state.news, next_due()}
end
local hold, owner, high, low = tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])
local deliveries, failures, changed = {}, {}, {}
for place, id in ipairs(ids) do
  local note = note_of(id)
  note[DELIVERIES], note[SINCE] = note[DELIVERIES] + 1, now
  note[TOKEN] = owner .. ':' .. token_of(high, low + place - 1)
  deliveries[place], failures[place], changed[place] = note[DELIVERIES], note[FAILURES], note
end
local reply = remember({'ok', items, priorities, deliveries, failures, high, low, now + hold})
for place, id in ipairs(ids) do
  keep(id, changed[place])
  redis.call('HSET', tokens, changed[place][TOKEN], id)
  redis.call('ZADD', leased, text(now + hold), id)
  redis.call('ZREM', ready, id)
end
announce(hold)
settled()
return reply
"""
#: A serial number has up to 63 bits, and a number in Lua 53, so it travels in two halves.
_SERIALS: Final = """
local function token_of(high, low)
  return text(high + math.floor(low / 4294967296)) .. ':' .. text(low % 4294967296)
end
"""
_RECALL: Final = """
local owner, high, low = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local found = {}
if redis.call('HLEN', tokens) > 0 then
  for place = 0, tonumber(ARGV[7]) - 1 do
    local id = redis.call('HGET', tokens, owner .. ':' .. token_of(high, low + place))
    if id then found[#found + 1] = id end
  end
end
local reply = remember({'ok'})
for _, id in ipairs(found) do release(id, note_of(id), 0) end
set('returned')
settled()
return reply
"""
_LEAVE: Final = """
local owner, count = ARGV[4] .. ':', 0
for _, id in ipairs(redis.call('ZRANGE', leased, 0, -1)) do
  local note = note_of(id)
  if string.sub(note[TOKEN], 1, #owner) == owner then
    release(id, note, 0)
    count = count + 1
  end
end
if count > 0 then set('returned') end
settled()
return {'ok'}
"""
_SETTLE: Final = """
local verdict, delay, reason = ARGV[4], tonumber(ARGV[5]), ARGV[6]
local ids, lost, seen = {}, {}, {}
for place = 7, #ARGV do
  local id = redis.call('HGET', tokens, ARGV[place])
  if id and not seen[id] then
    seen[id] = true
    ids[#ids + 1] = id
  else
    lost[#lost + 1] = place - 7
  end
end
local reply = remember({'ok', lost})
for _, id in ipairs(ids) do
  local note = note_of(id)
  if verdict == '0' then
    left({read(id)})
    end_lease(id, note)
    forget({id})
  elseif verdict == '1' then
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
set('bytes', 'charge', 'gets', 'returned')
if verdict == '0' and #ids > 0 then tell_writers() end
settled()
return reply
"""
_EXTEND: Final = """
local hold, lost, found = tonumber(ARGV[4]), {}, {}
for place = 5, #ARGV do
  local id = redis.call('HGET', tokens, ARGV[place])
  if id then found[#found + 1] = id else lost[#lost + 1] = place - 5 end
end
local reply = remember({'ok', lost})
for _, id in ipairs(found) do redis.call('ZADD', leased, text(now + hold), id) end
announce(hold)
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
local found = {}
for place, id in ipairs(redis.call('ZRANGE', leased, 0, -1)) do
  local note = note_of(id)
  found[place] = {note[SINCE], note[DELIVERIES]}
end
table.sort(found, function(one, other) return one[1] < other[1] end)
local reply = {}
for place = 1, math.min(#found, tonumber(ARGV[4])) do reply[place] = {now - found[place][1], found[place][2]} end
return {'ok', reply}
"""
_RECORD: Final = """
local function record(id)
  local note = note_of(id)
  return {read(id), priority_of(id), note[DELIVERIES], note[REASON], number_of(id)}
end
"""
_GET_DEAD: Final = """
local ids, records = redis.call('ZRANGE', dead, 0, 0), {}
for place, id in ipairs(ids) do records[place] = record(id) end
local reply = remember({'ok', records})
drop_all(dead, ids)
set('bytes', 'charge', 'gets')
tell_writers()
return reply
"""
_PEEK_DEAD: Final = """
local records = {}
local ids = redis.call('ZRANGEBYSCORE', dead, '(' .. ARGV[4], '+inf', 'LIMIT', '0', ARGV[5])
for place, id in ipairs(ids) do records[place] = record(id) end
return {'ok', records}
"""
_REQUEUE: Final = """
if state.down == 1 then return {'down'} end
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
set('bytes', 'charge', 'gets')
tell_writers()
return reply
"""

CREATE: Final = Script(_BEGIN + _CREATE, shrinking=False)
UNLINK: Final = Script(_BEGIN + _UNLINK)


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
