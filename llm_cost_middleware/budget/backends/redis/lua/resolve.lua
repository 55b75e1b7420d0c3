-- Write a resolution that was decided elsewhere, if the reservation is still as it was when it was decided.
--
-- KEYS  as in reserve.lua
-- ARGV  1 now in ms, or ''  2 version of the budgets  3 id
--       4 state (with a star where it was archived), 5 charged and 6 reconciled, as the decision saw them ('' for an id that must be new: a booking)
--       7 verb  8 amount  9 status  10 memo  11 new state  12 new charged  13 change of settled  14 of pending
--       15 scopes  16 created, '' for now  17 plan valid from  18 until (of a booking; the others are planned at `created`)
--       19 a number of this very call, kept with what it writes: sent twice, it knows its own work
--       20 amount that is held, as the decision saw it
--       then for each account: name, cell, first cell that counts, sums of settled that warn, the lowest first, or ''
-- Reply {'done', now, late, account that warns, ...} | {'known', record} (empty for none) | {'stale', now, budgets}
local now = tonumber(ARGV[1])
if not now then
    local time = redis.call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
end

local verb = ARGV[7]
local seen = redis.pcall('HMGET', KEYS[7], 'state', 'charged', 'reconciled', 'expires', 'created', 'amount', 'scopes',
    'archived')
if seen.err then  -- of an archived reservation a text is left
    return {'known', {'packed', redis.call('GET', KEYS[7]), 'id', ARGV[3]}}
end
if seen[1] == 'lapsed' then  -- the word of schema 1; the caller reads it as expired too
    seen[1] = 'expired'
end
if (seen[1] or '') .. (seen[8] and '*' or '') ~= ARGV[4] or (seen[1] and ((seen[2] or '0') ~= ARGV[5] or (seen[3] or '0') ~= ARGV[6]
        or seen[5] ~= ARGV[16] or seen[6] ~= ARGV[20] or seen[7] ~= ARGV[15])) then
    return {'known', redis.call('HGETALL', KEYS[7])}
end
if (redis.call('HGET', KEYS[1], 'version') or '') ~= ARGV[2]
        or (ARGV[16] == '' and (now < tonumber(ARGV[17]) or now >= tonumber(ARGV[18]))) then
    return {'stale', now, redis.call('HGETALL', KEYS[1])}
end
for index = 8, #KEYS do  -- read before anything is written: a key of another type fails here
    redis.call('HGET', KEYS[index], 'warned')
end

local created = ARGV[16] == '' and now or ARGV[16]
local reply = {'done', now, 0}
if verb ~= 'book' and (seen[1] == 'expired' or now >= tonumber(seen[4])) then
    reply[3] = 1
end

for index = 8, #KEYS do
    local at = 21 + (index - 8) * 4
    local cell, first, warn = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(string.match(ARGV[at + 3], '^%d+'))
    if ARGV[14] ~= '0' then
        redis.call('HINCRBY', KEYS[index], ARGV[at + 1] .. ':p', ARGV[14])
    end
    local settled = redis.call('HINCRBY', KEYS[index], ARGV[at + 1] .. ':s', ARGV[13])
    if verb == 'book' then
        redis.call('SADD', KEYS[5], ARGV[at])
    end
    if warn and verb ~= 'void' and verb ~= 'expire' then
        if cell ~= first then
            settled = 0
            local fields = redis.call('HGETALL', KEYS[index])
            for field = 1, #fields, 2 do
                local number = tonumber(string.match(fields[field], '^(%-?%d+):s$'))
                if number and number >= first then
                    settled = settled + fields[field + 1]
                end
            end
        end
        if settled >= warn then
            -- of the lowest once a window, whoever crossed it; of the others whoever crosses them
            local fresh = tonumber(redis.call('HGET', KEYS[index], 'warned') or -1) < first
            local before, crossed = settled - ARGV[13], fresh and ARGV[at + 3]:match('^%d+') or nil
            for sum in ARGV[at + 3]:gmatch('%d+') do
                if tonumber(sum) <= settled and tonumber(sum) > warn and (fresh or tonumber(sum) > before) then
                    crossed = sum
                end
            end
            if fresh then
                redis.call('HSET', KEYS[index], 'warned', ARGV[at + 1])
            end
            if crossed then
                reply[#reply + 1] = ARGV[at] .. ' ' .. crossed
            end
        end
    end
end

if verb == 'book' then
    redis.call('HSET', KEYS[7], 'id', ARGV[3], 'scopes', ARGV[15], 'amount', '0', 'created', created, 'expires', created)
end
redis.call('HSET', KEYS[7], 'state', ARGV[11], 'charged', ARGV[12], 'writer', ARGV[19])
if verb == 'reconcile' then
    redis.call('HSET', KEYS[7], 'reconciled', now)
end
if verb ~= 'reconcile' or seen[1] ~= 'settled' then  -- the first resolution is what a repeated settle gets back
    local warnings = verb == 'reconcile' and '' or table.concat(reply, ',', 4)
    redis.call('HSET', KEYS[7], 'verb', verb, 'actual', ARGV[8], 'status', ARGV[9], 'late', reply[3], 'resolved', now,
        'warnings', warnings)
end
if seen[1] == 'pending' then
    redis.call('ZREM', KEYS[4], ARGV[3])
end
local row = redis.call('INCR', KEYS[2])
redis.call('HSET', KEYS[7], 'row', row)
if ARGV[10] ~= '' then
    redis.call('HSET', KEYS[7], 'told', row)
end
redis.call('HSETNX', KEYS[6], math.floor(now / 3600000), row)
redis.call('XADD', KEYS[3], row .. '-0', 'kind', verb, 'id', ARGV[3], 'at', now, 'amount', ARGV[8],
    'scopes', ARGV[15], 'status', ARGV[9], 'created', created, 'settled', ARGV[13], 'pending', ARGV[14], 'memo', ARGV[10])
return reply
