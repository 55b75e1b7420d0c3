-- Shorten accounts of scopes that are at rest, if they are still as they were read and hold nothing.
--
-- KEYS  1 archiving  2 budgets  3 accounts  4.. an account each
-- ARGV  1 who does it  2 for how long more, ms  3 version of the budgets
--       then for each account: its name, '1' if it leaves ('': what it spent stays), its fields as they were read
-- Reply {'done', how many} | {'stale'}: other budgets are in force
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return redis.error_reply('another process archives it')
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
if (redis.call('HGET', KEYS[2], 'version') or '') ~= ARGV[3] then
    return {'stale'}
end
local done = 0
for index = 4, #KEYS do
    local at = 4 + (index - 4) * 3
    local fields, held = redis.call('HGETALL', KEYS[index]), {}
    local idle = table.concat(fields, ' ') == ARGV[at + 2]
    for field = 1, #fields, 2 do
        if string.sub(fields[field], -2) == ':p' then
            held[#held + 1] = fields[field]
            idle = idle and fields[field + 1] == '0'
        end
    end
    if idle then
        if ARGV[at + 1] == '1' then
            redis.call('UNLINK', KEYS[index])
        elseif #held > 0 then
            redis.call('HDEL', KEYS[index], unpack(held))
        end
        redis.call('SREM', KEYS[3], ARGV[at])
        done = done + 1
    end
end
return {'done', done}
