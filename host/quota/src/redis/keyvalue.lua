-- The key-value data of one policy for one tenant. What a policy calls its keys are fields
-- here and never names of Redis keys, so that no key reaches another namespace.
--
-- KEYS  1 the values, a hash {'=' .. key: value, '#': bytes counted}
--       2 when entries end, by this server's clock in ms
-- ARGV  1 get, set, delete or add   2 the key   3 the value, or what is added
--       4 ms to live, or ''   5 bytes that there is room for   6 entries
-- Answers {'VALUE', value} (of get and add), {'NONE'}, {'OK'}, {'FULL'}, {'NUMBER'} where
-- there is none to add to, {'OVERFLOW'}. Numbers stay text: Lua's are exact to 2^53 only.
local ENTRY, PURGED = 64, 64
local values, ends = KEYS[1], KEYS[2]
local op, key, ttl = ARGV[1], ARGV[2], ARGV[4]
local field = '=' .. key
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local function cost(name)
  if redis.call('HEXISTS', values, '=' .. name) == 0 then return 0 end
  return #name + redis.call('HSTRLEN', values, '=' .. name) + ENTRY
end

local function drop(name)
  local freed = cost(name)
  -- Nothing, negated, is "-0" to Lua and no number to Redis.
  if freed > 0 then
    redis.call('HINCRBY', values, '#', -freed)
    redis.call('HDEL', values, '=' .. name)
  end
  redis.call('ZREM', ends, name)
end

local function has_ended(name)
  local score = redis.call('ZSCORE', ends, name)
  return score and tonumber(score) <= now
end

local function entries() return math.max(0, redis.call('HLEN', values) - 1) end
local function bytes() return tonumber(redis.call('HGET', values, '#') or '0') end

-- Data that ends as a whole leaves nothing behind.
local function keep()
  local left = entries()
  if left == 0 then
    redis.call('DEL', values, ends)
  elseif redis.call('ZCARD', ends) == left then
    local last = redis.call('ZREVRANGE', ends, 0, 0, 'WITHSCORES')
    local ms = string.format('%.0f', math.max(1, tonumber(last[2]) - now))
    redis.call('PEXPIRE', values, ms)
    redis.call('PEXPIRE', ends, ms)
  else
    redis.call('PERSIST', values)
    redis.call('PERSIST', ends)
  end
end

if op == 'get' then
  local value = not has_ended(key) and redis.call('HGET', values, field)
  if value then return { 'VALUE', value } end
  return { 'NONE' }
end

-- Each write removes more than it can add.
for _, name in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, PURGED)) do
  drop(name)
end
if has_ended(key) then drop(key) end

if op == 'delete' then
  drop(key)
  keep()
  return { 'OK' }
end

local before = cost(key)
local is_new = before == 0
if is_new and entries() >= tonumber(ARGV[6]) then
  keep()
  return { 'FULL' }
end

local old = redis.call('HGET', values, field)
if op == 'add' then
  local added = redis.pcall('HINCRBY', values, field, ARGV[3])
  if type(added) == 'table' and added.err then
    keep()
    if string.find(added.err, 'overflow') then return { 'OVERFLOW' } end
    return { 'NUMBER' }
  end
else
  redis.call('HSET', values, field, ARGV[3])
end

local growth = cost(key) - before
if bytes() + growth > tonumber(ARGV[5]) then
  if old then redis.call('HSET', values, field, old) else redis.call('HDEL', values, field) end
  keep()
  return { 'FULL' }
end
redis.call('HINCRBY', values, '#', growth)
if op == 'set' or is_new then
  if ttl == '' then
    redis.call('ZREM', ends, key)
  else
    redis.call('ZADD', ends, string.format('%.0f', now + tonumber(ttl)), key)
  end
end
local value = redis.call('HGET', values, field)
keep()
if op == 'add' then return { 'VALUE', value } end
return { 'OK' }
