-- Reduce what a pending reservation holds, as was decided elsewhere, if it is still as it was when it was decided.
--
-- KEYS  as in reserve.lua
-- ARGV  1 now in ms, or ''  2 version of the budgets  3 id  4 created  5 amount, as the decision saw them
--       6 amount from now on  7 change of pending  8 scopes
--       9 a number of this very call, kept with what it writes: sent twice, it knows its own work
--       then for each account: name, cell, and two that are not needed here
-- Reply {'done', now} | {'known', record} (empty for none) | {'stale', now, budgets}
local now = tonumber(ARGV[1])
if not now then
    local time = redis.call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
end

local seen = redis.pcall('HMGET', KEYS[7], 'state', 'created', 'amount', 'scopes')
if seen.err then  -- of an archived reservation a text is left
    return {'known', {'packed', redis.call('GET', KEYS[7]), 'id', ARGV[3]}}
end
if seen[1] ~= 'pending' or seen[2] ~= ARGV[4] or seen[3] ~= ARGV[5] or seen[4] ~= ARGV[8] then
    return {'known', redis.call('HGETALL', KEYS[7])}
end
if (redis.call('HGET', KEYS[1], 'version') or '') ~= ARGV[2] then
    return {'stale', now, redis.call('HGETALL', KEYS[1])}
end
for index = 8, #KEYS do  -- read before anything is written: a key of another type fails here
    redis.call('HGET', KEYS[index], 'warned')
end

for index = 8, #KEYS do
    redis.call('HINCRBY', KEYS[index], ARGV[10 + (index - 8) * 4 + 1] .. ':p', ARGV[7])
end
redis.call('HSETNX', KEYS[7], 'requested', ARGV[5])
redis.call('HSET', KEYS[7], 'amount', ARGV[6], 'reducer', ARGV[9])
local row = redis.call('INCR', KEYS[2])
redis.call('HSET', KEYS[7], 'row', row)
redis.call('HSETNX', KEYS[6], math.floor(now / 3600000), row)
redis.call('XADD', KEYS[3], row .. '-0', 'kind', 'reduce', 'id', ARGV[3], 'at', now,
    'amount', ARGV[6], 'scopes', ARGV[8], 'status', 'reserved', 'created', ARGV[4], 'settled', 0, 'pending', ARGV[7],
    'memo', '')
return {'done', now}
