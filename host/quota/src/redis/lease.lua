-- LEASE: takes tokens back and grants tokens of the current tranche.
-- Everything is validated before the first write; a refusal writes nothing.
--
-- KEYS  1 ledger (hash)   2 edges with a lease (sorted set by its end)
-- ARGV  1 holder  2 seq  3 want  4 returned  5 epoch of the returned
--       6 floor  7 latest  8 ttl in ms  9 recall channel
-- Answers  GRANTED tokens epoch tranche free beyond low | RETURNED | NEXT fence
--          | STALE epoch | SOFT | OLD | NOTMASTER

local ledger, edges = KEYS[1], KEYS[2]
local holder, seq = ARGV[1], tonumber(ARGV[2])
local want, returned, returned_epoch = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local floor, latest, ttl = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])

local info = redis.call('INFO', 'server', 'replication')
if info:match('role:(%a+)') ~= 'master' then
  return {'NOTMASTER'}
end
local fence = 'redis:' .. info:match('run_id:(%x+)') .. ':' .. info:match('master_replid:(%x+)')

local h = redis.call('HMGET', ledger, 'fence', 'epoch', 'tranche', 'granted', 'beyond',
  'next', 'next_tranche', 'closed', 's:' .. holder)
if h[1] ~= fence then
  return {'NEXT', fence}
end
local epoch, tranche, granted = tonumber(h[2]), tonumber(h[3]), tonumber(h[4])
local beyond = tonumber(h[5])
-- The authority's floor never falls: what the caller knows to be closed grants nothing.
local closed = math.max(tonumber(h[8] or '0'), floor)
local next_epoch, next_tranche = tonumber(h[6] or '0'), tonumber(h[7] or '0')

-- The same message again brings the same grant; an older one does nothing.
local again = false
local tokens, grant_epoch, grant_tranche = 0, 0, 0
if h[9] then
  local last, n, e, t = h[9]:match('^(%d+) (%d+) (%d+) (%d+)$')
  if seq < tonumber(last) then
    return {'OLD'}
  end
  if seq == tonumber(last) then
    again = true
    tokens, grant_epoch, grant_tranche = tonumber(n), tonumber(e), tonumber(t)
  end
end

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)

local promoted, taken_back, soft = false, 0, false
if not again then
  if returned > 0 and returned_epoch == epoch and epoch > closed then
    local out = tonumber(redis.call('HGET', ledger, 'o:' .. holder .. ':' .. epoch) or '0')
    taken_back = math.min(returned, out, granted)
    granted = granted - taken_back
  end
  if (granted >= tranche or epoch <= closed) and next_epoch > closed then
    promoted = true
    epoch, tranche, granted = next_epoch, next_tranche, 0
    next_epoch, next_tranche = 0, 0
  end
  local free = 0
  if epoch > closed then
    free = tranche - granted
  end
  if want > 0 then
    if free > 0 and epoch > latest then
      -- What was given back is kept all the same, by the next message.
      if taken_back == 0 then
        return {'STALE', epoch}
      end
    elseif free > 0 then
      local others = redis.call('ZCOUNT', edges, now, '+inf')
      local mine = redis.call('ZSCORE', edges, holder)
      if not mine or tonumber(mine) < now then
        others = others + 1
      end
      local pool = free + next_tranche + beyond
      local share = math.max(1, math.ceil(pool / (2 * others)))
      tokens = math.min(want, free, share)
      grant_epoch, grant_tranche = epoch, tranche
      granted = granted + tokens
    elseif beyond == 0 then
      local others = redis.call('ZCOUNT', edges, '(' .. now, '+inf')
      local mine = redis.call('ZSCORE', edges, holder)
      if mine and tonumber(mine) > now then
        others = others - 1
      end
      soft = others > 0
    end
  end

  if promoted then
    redis.call('HSET', ledger, 'epoch', epoch, 'tranche', tranche)
    redis.call('HDEL', ledger, 'next', 'next_tranche')
  end
  if promoted or taken_back > 0 or tokens > 0 then
    redis.call('HSET', ledger, 'granted', granted)
  end
  if taken_back > 0 then
    redis.call('HINCRBY', ledger, 'o:' .. holder .. ':' .. returned_epoch, -taken_back)
  end
  if tokens > 0 then
    redis.call('HINCRBY', ledger, 'o:' .. holder .. ':' .. grant_epoch, tokens)
  end
  if tokens > 0 or returned > 0 then
    redis.call('HSET', ledger, 's:' .. holder,
      string.format('%d %d %d %d', seq, tokens, grant_epoch, grant_tranche))
  end
end

if tokens > 0 then
  redis.call('ZREMRANGEBYSCORE', edges, '-inf', now)
  redis.call('ZADD', edges, now + ttl, holder)
  local free = 0
  if epoch > closed then
    free = tranche - granted
  end
  local low = 0
  if next_epoch == 0 and beyond > 0 and tranche > 64 and free <= tranche / 2 then
    low = 1
  end
  return {'GRANTED', tokens, grant_epoch, grant_tranche, free + next_tranche, beyond, low}
end
if want == 0 then
  if not again then
    redis.call('ZREM', edges, holder)
  end
  return {'RETURNED'}
end
if soft then
  redis.call('PUBLISH', ARGV[9], ledger)
  return {'SOFT'}
end
if epoch > closed and tranche > granted and epoch > latest then
  return {'STALE', epoch}
end
return {'NEXT', fence}
