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
a later entry of the stream. Such an entry is written only while somebody waits. It wakes all who wait: a token that
wakes one of them would be lost with a process that is killed before it takes the message, and the others would sleep
on.
"""

from typing import Final, NamedTuple

#: Seconds for which the server keeps the last reply of a lane.
KEPT_SECONDS: Final = 60
#: Seconds for which the server tells a client of changes after it found nothing to take, or no space.
TOLD_SECONDS: Final = 10
#: The most words of a command in a script: Lua passes at most 8,000.
_WORDS: Final = 1000
#: Version of the layout.
LAYOUT: Final = "2"

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
    "dropped",
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

BEGIN: Final = f"""
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

QUEUE: Final = f"""
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
local function each_droppable(priority, drop)
  local from = 0
  repeat
    local part = redis.call('LRANGE', data, from, from + 63)
    for _, item in ipairs(part) do
      if not drop(nil, item) then return end
    end
    from = from + 64
  until #part < 64
end
local function latest() return {}, redis.call('LRANGE', data, 0, -1), nil end
local function take(ids, items)
  if #items == 1 then redis.call('LPOP', data) else redis.call('LTRIM', data, #items, -1) end
end
"""

WITH_IDS: Final = """
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
local function each_droppable(priority, drop)
  local bound = '+'
  while true do
    local prefix = string.sub(redis.call('ZREVRANGEBYLEX', ready, bound, '-', 'LIMIT', '0', '1')[1] or '', 1, 5)
    if prefix == '' or tonumber(prefix) < 32767 - priority then return end
    local from = '[' .. prefix
    repeat
      local part = redis.call('ZRANGEBYLEX', ready, from, '(' .. prefix .. '~', 'LIMIT', '0', '64')
      for place, item in ipairs(read(part)) do
        if not drop(part[place], item) then return end
        from = '(' .. part[place]
      end
    until #part < 64
    bound = '(' .. prefix
  end
end
local function latest()
  local prefix = string.sub(redis.call('ZRANGE', ready, 0, 0)[1] or '', 1, 5)
  if prefix == '' then return {}, {}, nil end
  local ids = redis.call('ZRANGEBYLEX', ready, '[' .. prefix, '(' .. prefix .. '~')
  return ids, read(ids), priority_of(prefix)
end
local function take(ids)
  each('ZREM', ready, ids)
  forget(ids)
end
"""


#: Parameters: priority, delay in microseconds, and the messages.
PUT: Final = """
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
#: Parameters: priority, and the message.
_PUT_DROPPING: Final = """
if down == 1 then return {'down'} end
local priority, item = tonumber(ARGV[4]), ARGV[5]
local cost, held = math.max(#item, 1), max_messages > 0 and places() or puts - gets
local ids, items, freed = {}, {}, 0
local function fits()
  return (max_messages == 0 or held - #items < max_messages)
    and (buffer_size == 0 or charge - freed + cost <= buffer_size)
end
if not fits() then
  each_droppable(priority, function(id, old)
    ids[#ids + 1], items[#items + 1] = id, old
    freed = freed + math.max(#old, 1)
    return not fits()
  end)
end
if not fits() then return {'full'} end
number = number + 1
local reply = remember({'ok', 1, number, #items})
bytes, charge, bytes_put, puts = bytes + #item, charge + cost, bytes_put + #item, puts + 1
high, dropped = math.max(high, held - #items + 1), dropped + #items
store(number, priority, {item})
if #items > 0 then
  left(items)
  take(ids, items)
  if writers > now then wake_writers() end
end
if readers > now then wake_readers() end
save()
return reply
"""
_GET_LATEST: Final = """
local ids, items, priority = latest()
if #items == 0 then
  if ended() then return {'down'} end
  await_news()
  return {'none', news, next_due()}
end
local reply = remember({'ok', {items[#items]}, {priority}})
dropped = dropped + #items - 1
left(items)
take(ids, items)
if writers > now then wake_writers() end
if readers > now and ended() then wake_readers() end
save()
return reply
"""
#: Begins a take. Parameters: the most messages, and the size in bytes after which it ends.
TAKING: Final = """
local ids, items, priorities = first(tonumber(ARGV[4]), tonumber(ARGV[5]))
if #items == 0 then
  if ended() then return {'down'} end
  await_news()
  return {'none', news, next_due()}
end
"""
_GET: Final = """
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
#: Ends an operation after which messages have left.
LEFT: Final = """
if writers > now then wake_writers() end
save()
return reply
"""
_CLEAR: Final = """
local ids, items = first(places(), math.huge)
local reply = remember({'ok', #items})
left(items)
take(ids, items)
"""
#: Begins a shutdown. Parameter: 1 to drop the messages.
SHUTTING_DOWN: Final = """
local reply = remember({'ok'})
down = 1
wake_readers()
wake_writers()
"""
_SHUT_DOWN: Final = """
if ARGV[4] == '1' then
  local ids, items = first(places(), math.huge)
  left(items)
  take(ids, items)
end
save()
return reply
"""
_FIGURES: Final = """
return {'ok', ready_count(), bytes, bytes_put, puts, gets, high, returned, dropped, places(), charge}
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


CREATE: Final = Script(BEGIN + _CREATE, shrinking=False)
UNLINK: Final = Script(BEGIN + QUEUE + _UNLINK)


class Scripts:
    """The scripts of one kind of queues."""

    def __init__(self, kind: str) -> None:
        begin = BEGIN + QUEUE + kind
        self.put = Script(begin + PUT, shrinking=False)
        self.get = Script(begin + TAKING + _GET)
        self.put_dropping = Script(begin + _PUT_DROPPING, shrinking=False)
        self.get_latest = Script(begin + _GET_LATEST)
        self.peek = Script(begin + _PEEK)
        self.clear = Script(begin + _CLEAR + LEFT)
        self.shut_down = Script(begin + SHUTTING_DOWN + _SHUT_DOWN)
        self.figures = Script(begin + _FIGURES)
        self.watch = Script(begin + _WATCH)


LIST: Final = Scripts(_LIST)
CELLS: Final = Scripts(WITH_IDS)
