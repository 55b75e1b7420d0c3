-- Close the reservations that are old and sure: they take no correction from now on. Others as old are noted as left.
--
-- KEYS  1 archiving  2 left  3.. a reservation each
-- ARGV  1 who archives  2 for how long more, ms  3 before when, ms  then the id of each
-- Reply for each: 1 closed, 0 not
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return redis.error_reply('another process archives it')
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local before, reply = tonumber(ARGV[3]), {}
for index = 3, #KEYS do
    local seen = redis.pcall('HMGET', KEYS[index], 'state', 'status', 'created', 'resolved', 'reconciled', 'archived')
    local closed = 0
    if not seen.err and seen[1] and seen[1] ~= 'refused' then
        local created, corrected = tonumber(seen[3]), tonumber(seen[5] or 0)
        local sure = (seen[1] == 'settled' or seen[1] == 'voided')
            and (corrected > 0 or seen[2] == 'exact' or seen[2] == 'void')
        if seen[6] then
            closed = 1
        elseif sure and math.max(created, tonumber(seen[4] or 0), corrected) < before then
            redis.call('HSET', KEYS[index], 'archived', '1')
            closed = 1
        elseif created < before then
            redis.call('ZADD', KEYS[2], created, ARGV[index + 1])
        end
    end
    reply[#reply + 1] = closed
end
return reply
