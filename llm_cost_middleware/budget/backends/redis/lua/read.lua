-- The sums of some accounts, all at one moment.
--
-- KEYS  1 budgets  2.. one hash an account
-- ARGV  1 now in ms, or ''  2 version of the budgets  3 plan valid from  4 until
--       then for each account: cell, first cell that counts
-- Reply {'sums', now, settled, pending, ...} | {'stale', now, budgets}
local now = tonumber(ARGV[1])
if not now then
    local time = redis.call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
end
if (redis.call('HGET', KEYS[1], 'version') or '') ~= ARGV[2] or now < tonumber(ARGV[3]) or now >= tonumber(ARGV[4]) then
    return {'stale', now, redis.call('HGETALL', KEYS[1])}
end
local reply = {'sums', now}
for index = 2, #KEYS do
    local at = 5 + (index - 2) * 2
    local cell, first = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
    local settled, pending = '0', '0'
    if cell == first then
        local sums = redis.call('HMGET', KEYS[index], ARGV[at] .. ':s', ARGV[at] .. ':p')
        settled, pending = sums[1] or '0', sums[2] or '0'
    else
        local counted = {s = 0, p = 0}
        local fields = redis.call('HGETALL', KEYS[index])
        for field = 1, #fields, 2 do
            local number, kind = string.match(fields[field], '^(%-?%d+):([sp])$')
            if number and tonumber(number) >= first then
                counted[kind] = counted[kind] + fields[field + 1]
            end
        end
        settled, pending = string.format('%.0f', counted.s), string.format('%.0f', counted.p)
    end
    reply[#reply + 1] = settled
    reply[#reply + 1] = pending
end
return reply
