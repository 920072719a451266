-- Hands out what a rate has earned, by this server's clock, to edges that hold it for a
-- moment only. A leaky bucket as a meter (ITU-T I.371): `debt` is the time that what was
-- handed out takes to earn, and leaks away as time passes.
--
-- KEYS  1 the bucket, a hash {at: us, debt: ns}   2 the edges that use it, by last use in us
-- ARGV  1 ns that earn one   2 ns that may be owed   3 the least that is of use
--       4 what is wanted   5 this edge   6 ms after which an edge no longer counts
-- Answers {granted, what is left, ms until the least is there (0 when granted), edges}.
-- Every number is below 2^53, so that no sum is rounded.
local interval, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local least, want = tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local held = redis.call('HMGET', KEYS[1], 'at', 'debt')
local debt = tonumber(held[2] or '0')
-- A clock that went back earns nothing, and one that stood still for long no more than all.
local earned = math.max(0, now - tonumber(held[1] or '0'))
if earned >= most / 1000 then debt = 0 else debt = math.max(0, debt - earned * 1000) end

redis.call('ZADD', KEYS[2], now, ARGV[5])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', '(' .. string.format('%.0f', now - tonumber(ARGV[6]) * 1000))
redis.call('PEXPIRE', KEYS[2], ARGV[6])
local edges = math.max(1, redis.call('ZCARD', KEYS[2]))

local left = math.max(0, math.floor((most - debt) / interval))
local granted, wait = 0, 0
if left >= least then
  granted = math.min(want, math.max(least, math.ceil(left / (2 * edges))))
  debt = debt + granted * interval
else
  wait = math.ceil((debt + least * interval - most) / 1000000)
end
redis.call('HSET', KEYS[1], 'at', string.format('%.0f', now), 'debt', string.format('%.0f', debt))
-- Without debt a bucket is as good as none.
redis.call('PEXPIRE', KEYS[1], math.ceil(debt / 1000000) + 1000)
return { granted, left - granted, wait, edges }
