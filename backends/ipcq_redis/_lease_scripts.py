"""The operations of queues with leases: what they do besides (`_scripts` has the others, and describes all)."""

from typing import Final

from ipcq_redis._scripts import BEGIN, LEFT, PUT, QUEUE, SHUTTING_DOWN, TAKING, WITH_IDS, Script, Scripts

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
_SHUT_DOWN_LEASES: Final = """
if ARGV[4] == '1' then
  for _, key in ipairs({ready, delayed, leased}) do drop_all(key, redis.call('ZRANGE', key, 0, -1)) end
end
save()
return reply
"""
_LEASE: Final = """
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
"""


class LeaseScripts(Scripts):
    """The scripts of queues with leases."""

    def __init__(self) -> None:
        super().__init__(WITH_IDS + _LEASES)
        begin = BEGIN + QUEUE + WITH_IDS + _LEASES
        dropping, giving = begin + _DROP_DELAYED, begin + _SERIALS
        self.put = Script(begin + _STORE_DELAYED + PUT, shrinking=False)
        self.clear = Script(dropping + _CLEAR_LEASES)
        self.shut_down = Script(dropping + SHUTTING_DOWN + _SHUT_DOWN_LEASES)
        self.lease = Script(giving + TAKING + _LEASE)
        self.recall = Script(giving + _RECALL)
        self.leave = Script(begin + _LEAVE)
        self.settle = Script(begin + _SETTLE)
        self.extend = Script(begin + _EXTEND)
        self.find_lost = Script(begin + _FIND_LOST)
        self.tend = Script(begin + _TEND)
        self.counts = Script(begin + _COUNTS)
        self.held = Script(begin + _HELD)
        self.get_dead = Script(dropping + _RECORD + _GET_DEAD + LEFT)
        self.peek_dead = Script(begin + _RECORD + _PEEK_DEAD)
        self.requeue = Script(begin + _REQUEUE, shrinking=False)
        self.clear_dead = Script(dropping + _CLEAR_DEAD + LEFT)


LEASES: Final = LeaseScripts()
