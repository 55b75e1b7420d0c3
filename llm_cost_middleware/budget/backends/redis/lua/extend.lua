-- Let a pending reservation expire later, never earlier.
--
-- KEYS  1 open  2 reservation        ARGV  1 now in ms, or ''  2 id  3 ttl in ms
-- Reply the record, empty for none; the caller sees from its state whether it was extended.
local now = tonumber(ARGV[1])
if not now then
    local time = redis.call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local seen = redis.pcall('HMGET', KEYS[2], 'state', 'expires')
if seen.err then  -- of an archived reservation a text is left
    return {'packed', redis.call('GET', KEYS[2]), 'id', ARGV[2]}
end
if seen[1] == 'pending' and now + ARGV[3] > tonumber(seen[2]) then
    redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[2])
    redis.call('HSET', KEYS[2], 'expires', now + ARGV[3])
end
return redis.call('HGETALL', KEYS[2])
