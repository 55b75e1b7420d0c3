-- Read rows, and say that they are being read: no archive takes any away for as long.
--
-- KEYS  1 readers  2 rows     ARGV  1 name of the reader  2 how long, ms  3 the first row that is wanted  4 how many
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
return redis.call('XRANGE', KEYS[2], ARGV[3], '+', 'COUNT', ARGV[4])
