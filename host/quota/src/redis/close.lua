-- CLOSE: forbids further grants and returns of an epoch and of those before it, and answers
-- the tokens that each holder was granted of it and did not return.
--
-- KEYS  1 ledger (hash)
-- ARGV  1 fence of the epoch  2 epoch
-- Answers  UNKNOWN | CLOSED holder tokens holder tokens … | NOTMASTER

local ledger, epoch = KEYS[1], tonumber(ARGV[2])

local info = redis.call('INFO', 'server', 'replication')
if info:match('role:(%a+)') ~= 'master' then
  return {'NOTMASTER'}
end
local fence = 'redis:' .. info:match('run_id:(%x+)') .. ':' .. info:match('master_replid:(%x+)')
if ARGV[1] ~= fence then
  return {'UNKNOWN'}
end
-- A ledger that lost its data under the same life (FLUSHALL) does not know the epoch.
local h = redis.call('HMGET', ledger, 'fence', 't:' .. epoch, 'closed')
if h[1] ~= fence or not h[2] then
  return {'UNKNOWN'}
end
if tonumber(h[3] or '0') < epoch then
  redis.call('HSET', ledger, 'closed', epoch)
end
local answer = {'CLOSED'}
local all = redis.call('HGETALL', ledger)
for i = 1, #all, 2 do
  local holder, of = all[i]:match('^o:(.*):(%d+)$')
  if holder and tonumber(of) == epoch then
    answer[#answer + 1] = holder
    answer[#answer + 1] = tonumber(all[i + 1])
  end
end
return answer
