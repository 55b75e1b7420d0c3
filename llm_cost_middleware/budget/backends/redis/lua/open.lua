-- Make the keys of a ledger, or bring those of an older version forward; all or nothing.
--
-- KEYS  1 where versions before 5 kept their budgets  2 budgets  3 moments
-- ARGV  1 schema  2 now in ms, or ''
-- Reply the schema of what is there, before
local found = tonumber(redis.call('HGET', KEYS[1], 'schema') or ARGV[1])
if found > tonumber(ARGV[1]) then
    return found
end
if found < 5 then
    local now = tonumber(ARGV[2])
    if not now then
        local time = redis.call('TIME')
        now = time[1] * 1000 + math.floor(time[2] / 1000)
    end
    redis.call('RENAME', KEYS[1], KEYS[2])
    redis.call('HINCRBY', KEYS[2], 'version', 1)
    -- Of what is there no row's time is known: whoever reads from before now on reads all of it.
    redis.call('HSET', KEYS[3], math.floor(now / 3600000), 1)
end
-- A process of an older version that still runs finds a budget of nothing, and refuses every call; one that starts
-- finds a newer schema. What is under way is settled: that both versions write alike.
redis.call('HSET', KEYS[1], 'schema', ARGV[1])
redis.call('HSETNX', KEYS[1], 'version', 'newer')
redis.call('HSETNX', KEYS[1], 'global none', '[0, "UTC", null]')
redis.call('HSETNX', KEYS[2], 'version', 1)
return found
