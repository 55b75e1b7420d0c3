-- Store shared values; of more than are kept, the ones that were not changed for longest go.
-- KEYS: the index by age, then a key a value. ARGV: now (s), how many are kept, their lifetime (s), the values.
local kept, lifetime = tonumber(ARGV[2]), ARGV[3]
for number = 2, #KEYS do
    redis.call('SET', KEYS[number], ARGV[number + 2], 'EX', lifetime)
    redis.call('ZADD', KEYS[1], ARGV[1], KEYS[number])
end
redis.call('EXPIRE', KEYS[1], lifetime)
local over = redis.call('ZCARD', KEYS[1]) - kept
if over > 0 then
    local oldest = redis.call('ZPOPMIN', KEYS[1], over)
    for number = 1, #oldest, 2 do
        redis.call('DEL', oldest[number])
    end
end
return 0
