-- Put the sums and budgets of a scope under another name, after the reservations that nobody has renamed yet.
--
-- These are few, and their keys are made here from their rows: while other processes write, nobody could name them all.
-- They are in the slot of the keys that are named.
--
-- KEYS  1 archiving  2 rows  3 ledger  4 accounts  5 erasure  6 reservations, but for the id  7.. two accounts each: the
--       old one, the new one
-- ARGV  1 who archives  2 for how long more, ms  3 the last row that was seen  4 version of the budgets
--       5 the scope  6 its new name  7 most rows that are looked at here
--       8 number of fields of the ledger, then for each its name and value, '' to remove it
--       then for each pair the old and the new name
-- Reply {'done'} | {'moved'}: come again
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return redis.error_reply('another process archives it')
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local newer = redis.call('XRANGE', KEYS[2], '(' .. ARGV[3] .. '-0', '+', 'COUNT', ARGV[7])
if #newer >= tonumber(ARGV[7]) or redis.call('HGET', KEYS[3], 'version') ~= ARGV[4] then
    return {'moved'}
end
local scope, last = string.gsub(ARGV[5], '%W', '%%%0'), ARGV[3]
for _, entry in ipairs(newer) do
    last = string.match(entry[1], '^%d+')
    for place = 1, #entry[2], 2 do
        if entry[2][place] == 'id' then
            local key = KEYS[6] .. entry[2][place + 1]
            local seen = redis.pcall('HMGET', key, 'scopes', 'warnings')
            if not seen.err and seen[1] then
                local name = string.gsub(' ' .. seen[1] .. ' ', ' ' .. scope .. ' ', ' ' .. ARGV[6] .. ' ')
                redis.call('HSET', key, 'scopes', string.sub(name, 2, -2))
                if seen[2] then
                    name = string.gsub(',' .. seen[2], ',' .. scope .. ' ', ',' .. ARGV[6] .. ' ')
                    redis.call('HSET', key, 'warnings', string.sub(name, 2))
                end
            end
        end
    end
end
local at = 9
for _ = 1, tonumber(ARGV[8]) do
    if ARGV[at + 1] == '' then
        redis.call('HDEL', KEYS[3], ARGV[at])
    else
        redis.call('HSET', KEYS[3], ARGV[at], ARGV[at + 1])
    end
    at = at + 2
end
for index = 7, #KEYS, 2 do
    local fields = redis.call('HGETALL', KEYS[index])
    for field = 1, #fields, 2 do
        if fields[field] == 'warned' then
            redis.call('HSETNX', KEYS[index + 1], 'warned', fields[field + 1])
        else
            redis.call('HINCRBY', KEYS[index + 1], fields[field], fields[field + 1])
        end
    end
    redis.call('DEL', KEYS[index])
    redis.call('SREM', KEYS[4], ARGV[at])
    redis.call('SADD', KEYS[4], ARGV[at + 1])
    at = at + 2
end
redis.call('HSET', KEYS[5], 'state', 'merged', 'last', last)
redis.call('HINCRBY', KEYS[3], 'version', 1)
return {'done'}
