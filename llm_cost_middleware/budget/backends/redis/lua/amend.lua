-- Set and remove budgets, keep their register, and write the accounts of windows that are new, moved or not their own.
--
-- KEYS  1 budgets  2 seq  3 accounts  4.. one hash for each account to write anew
-- ARGV  1 version of the budgets  2 number of the last row that was counted, '' where no account is written
--       3 register, '' for none  4 number of budgets, then for each: name, facts or '' to remove it
--       then for each account: name, number of fields, field, value, ...
-- Reply {'done', version} | {'stale', 0, budgets} | {'moved'}: rows were appended since; count them and come again
if (redis.call('HGET', KEYS[1], 'version') or '') ~= ARGV[1] then
    return {'stale', 0, redis.call('HGETALL', KEYS[1])}
end
if ARGV[2] ~= '' and (redis.call('GET', KEYS[2]) or '0') ~= ARGV[2] then
    return {'moved'}
end
if ARGV[3] ~= '' then
    redis.call('HSET', KEYS[1], 'register', ARGV[3])
end
local at = 5
for _ = 1, tonumber(ARGV[4]) do
    if ARGV[at + 1] == '' then
        redis.call('HDEL', KEYS[1], ARGV[at])
    else
        redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
    end
    at = at + 2
end
for index = 4, #KEYS do
    local warned = redis.call('HGET', KEYS[index], 'warned')
    redis.call('DEL', KEYS[index])
    redis.call('SREM', KEYS[3], ARGV[at])
    local last = at + 1 + tonumber(ARGV[at + 1])
    for field = at + 2, last, 2 do
        redis.call('HSET', KEYS[index], ARGV[field], ARGV[field + 1])
    end
    if last > at + 1 then
        redis.call('SADD', KEYS[3], ARGV[at])
        if warned then
            redis.call('HSET', KEYS[index], 'warned', warned)
        end
    end
    at = last + 1
end
return {'done', redis.call('HINCRBY', KEYS[1], 'version', 1)}
