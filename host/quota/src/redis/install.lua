-- INSTALL: takes in a tranche that the authority has debited for this very server life.
-- Sent at most once; a refusal writes nothing and the tranche is abandoned.
--
-- KEYS  1 ledger (hash)   2 edges with a lease (sorted set)
-- ARGV  1 fence  2 epoch  3 tranche  4 beyond  5 time to live of the ledger in ms
-- Answers  OK | FENCED fence | ORDER | NOTMASTER

local ledger, edges = KEYS[1], KEYS[2]
local epoch, tranche, beyond = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local info = redis.call('INFO', 'server', 'replication')
if info:match('role:(%a+)') ~= 'master' then
  return {'NOTMASTER'}
end
local fence = 'redis:' .. info:match('run_id:(%x+)') .. ':' .. info:match('master_replid:(%x+)')
if ARGV[1] ~= fence then
  return {'FENCED', fence}
end

local h = redis.call('HMGET', ledger, 'fence', 'epoch', 'tranche', 'granted', 'next',
  'next_tranche', 'closed')
if h[1] ~= fence then
  -- Another life's ledger, or none: nothing of it counts.
  redis.call('DEL', ledger, edges)
  redis.call('HSET', ledger, 'fence', fence, 'epoch', epoch, 'tranche', tranche, 'granted', 0,
    'beyond', beyond, 't:' .. epoch, tranche)
  redis.call('PEXPIRE', ledger, ARGV[5])
  redis.call('PEXPIRE', edges, ARGV[5])
  return {'OK'}
end

local current, next_epoch = tonumber(h[2]), tonumber(h[5] or '0')
local closed = tonumber(h[7] or '0')
if current >= epoch or next_epoch >= epoch or closed >= epoch then
  return {'ORDER'}
end
local live = tonumber(h[4]) < tonumber(h[3]) and current > closed
if live and next_epoch == 0 then
  redis.call('HSET', ledger, 'next', epoch, 'next_tranche', tranche)
elseif live and next_epoch > closed then
  -- The authority closed the current one when it opened a third.
  redis.call('HSET', ledger, 'epoch', next_epoch, 'tranche', h[6], 'granted', 0,
    'next', epoch, 'next_tranche', tranche)
else
  redis.call('HSET', ledger, 'epoch', epoch, 'tranche', tranche, 'granted', 0)
  redis.call('HDEL', ledger, 'next', 'next_tranche')
end
redis.call('HSET', ledger, 'beyond', beyond, 't:' .. epoch, tranche)
-- Of epochs far behind nobody asks any more.
for _, field in ipairs(redis.call('HKEYS', ledger)) do
  local of = field:match('^o:.*:(%d+)$') or field:match('^t:(%d+)$')
  if of and tonumber(of) + 64 < epoch then
    redis.call('HDEL', ledger, field)
  end
end
redis.call('PEXPIRE', ledger, ARGV[5])
return {'OK'}
