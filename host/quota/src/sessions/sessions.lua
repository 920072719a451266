-- The sessions of one tenant, counted by Redis. One script, so that every operation sees
-- the same fence, clock and rules; the rules are those of in_process.rs, line by line.
--
-- KEYS  1 live: member -> expiry      2 order: member -> admission
--       3 gone: member -> expiry, ended a moment ago ("-id") or evicted ("!id")
--       4 guard: "<fence> <ms before which nobody new is admitted>", no TTL
-- ARGV  1 operation, 2 ttl_ms, then
--       admit: limit, evict (0 or 1), id      renew: limit, ids...
--       end: id                               count: nothing
--       guard: fence, time at which it was missed, hold_ms
-- Answers  OK, for renew with 1 or 0 per id, for count with the count | PRESENT | FULL
--          | HELD ms | NOGUARD fence time | FENCED | LATE | NOTMASTER
-- All times are this server's own, in ms. A refusal writes nothing.

local live, order, gone, guard = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local operation, ttl = ARGV[1], tonumber(ARGV[2])

-- A guard that took longer to arrive than this is not believed.
local GUARD_LATE_MS = 1000
-- Members that one call takes out at most: a call stays short.
local PRUNE_MAX = 1000

local info = redis.call('INFO', 'server', 'replication')
local run_id, replid = info:match('run_id:(%x+)'), info:match('master_replid:(%x+)')
if info:match('role:(%a+)') ~= 'master' or not run_id or not replid then
  return {'NOTMASTER'}
end
local fence = 'redis:' .. run_id .. ':' .. replid
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local held_by, open_at = string.match(redis.call('GET', guard) or '', '^(%S+) (%d+)$')
local guarded = held_by == fence

if operation == 'guard' then
  if ARGV[3] ~= fence then return {'FENCED'} end
  if guarded then return {'OK'} end
  local age = now - tonumber(ARGV[4])
  if age < 0 or age > GUARD_LATE_MS then return {'LATE'} end
  -- What another life of the registry left counts nobody.
  redis.call('DEL', live, order, gone)
  redis.call('SET', guard, fence .. ' ' .. string.format('%.0f', now + tonumber(ARGV[5])))
  return {'OK'}
end

local function count()
  return redis.call('ZCOUNT', live, '(' .. string.format('%.0f', now), '+inf')
end

if operation == 'count' then
  return {'OK', guarded and count() or 0}
end
if not guarded then
  return {'NOGUARD', fence, string.format('%.0f', now)}
end

local function is_live(id)
  local expires = redis.call('ZSCORE', live, id)
  return expires and tonumber(expires) > now
end

local function is_gone(mark, id)
  local expires = redis.call('ZSCORE', gone, mark .. id)
  return expires and tonumber(expires) > now
end

local function prune()
  local upto = string.format('%.0f', now)
  local dead = redis.call('ZRANGEBYSCORE', live, '-inf', upto, 'LIMIT', 0, PRUNE_MAX)
  for _, id in ipairs(dead) do
    redis.call('ZREM', live, id)
    redis.call('ZREM', order, id)
  end
  redis.call('ZREMRANGEBYSCORE', gone, '-inf', upto)
end

-- Keys of a tenant that nobody visits any more go by themselves.
local function keep(key)
  redis.call('PEXPIRE', key, ttl * 4)
end

local function heartbeat(id)
  redis.call('ZADD', live, now + ttl, id)
  keep(live)
  keep(order)
end

local function add(id)
  local last = redis.call('ZRANGE', order, -1, -1, 'WITHSCORES')[2]
  redis.call('ZADD', order, (tonumber(last) or 0) + 1, id)
  redis.call('ZREM', gone, '-' .. id, '!' .. id)
  heartbeat(id)
end

local function drop(id, mark)
  if redis.call('ZREM', live, id) == 0 then return end
  redis.call('ZREM', order, id)
  redis.call('ZADD', gone, now + ttl, mark .. id)
  keep(gone)
end

if operation == 'admit' then
  local limit, evict, id = tonumber(ARGV[3]), ARGV[4] == '1', ARGV[5]
  -- While the guard holds, also nobody who is present: a late renewal may have brought
  -- back a session whose edge has closed it (found by the model check).
  local wait = tonumber(open_at) - now
  if wait > 0 then return {'HELD', wait} end
  if is_live(id) then
    heartbeat(id)
    return {'PRESENT'}
  end
  if is_gone('!', id) then return {'FULL'} end
  local alive = count()
  if alive >= limit and not (evict and limit > 0) then return {'FULL'} end
  prune()
  -- The live ones that were admitted first make room. What has expired is not among them.
  while alive >= limit do
    local oldest = redis.call('ZRANGE', order, 0, 0)[1]
    if not oldest then return {'FULL'} end
    if is_live(oldest) then
      drop(oldest, '!')
      alive = alive - 1
    else
      redis.call('ZREM', order, oldest)
    end
  end
  add(id)
  return {'OK'}
end

if operation == 'renew' then
  local limit, answer = tonumber(ARGV[3]), {'OK'}
  local alive = count()
  for i = 4, #ARGV do
    local id, counts = ARGV[i], 1
    if is_live(id) then
      heartbeat(id)
    elseif alive < limit and not is_gone('-', id) and not is_gone('!', id) then
      prune()
      add(id)
      alive = alive + 1
    else
      counts = 0
    end
    answer[#answer + 1] = counts
  end
  return answer
end

if operation == 'end' then
  prune()
  drop(ARGV[3], '-')
  return {'OK'}
end

return redis.error_reply('ERR no such operation')
