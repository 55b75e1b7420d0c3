-- Take in a parcel of a process: what calls have cost, and what its blocks hold from now on. Everything is read and
-- checked first.
--
-- KEYS  1 budgets  2 seq  3 rows  4 open  5 accounts  6 moments; then the reservation of each call, the hash of each
--       account that calls change, and of each block its reservation and the hash of each of its accounts
-- ARGV  1 now in ms, or ''  2 version of the budgets  3 number of calls  4 of accounts  5 of blocks
--       of each call: kind, id, scopes, amount, created, expires, status, memo
--       of each account: name, cell, first cell that counts, sums of settled that warn, change of settled, of pending
--       of each block: id, amount, ttl (0: it ends), scopes, created, number of accounts; then the cell in each
-- Reply {'done', now, ids of blocks that had ended, account that warns, ...} | {'taken', id, ...}: known already
--       | {'stale', now, budgets}
local now = tonumber(ARGV[1])
if not now then
    local time = redis.call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
end
if (redis.call('HGET', KEYS[1], 'version') or '') ~= ARGV[2] then
    return {'stale', now, redis.call('HGETALL', KEYS[1])}
end

local calls, accounts, blocks = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local held = {'taken'}
for call = 1, calls do
    if redis.call('EXISTS', KEYS[6 + call]) == 1 then
        held[#held + 1] = ARGV[6 + (call - 1) * 8 + 1]
    end
end
if #held > 1 then
    return held
end
for account = 1, accounts do  -- a key of another type fails here
    redis.call('HGET', KEYS[6 + calls + account], 'warned')
end

local function text(number)
    return string.format('%.0f', number)
end

local row, alike = redis.call('INCRBY', KEYS[2], calls) - calls, {}
if calls > 0 then
    redis.call('HSETNX', KEYS[6], math.floor(now / 3600000), row + 1)
end
for call = 1, calls do
    local at, key = 6 + (call - 1) * 8, KEYS[6 + call]
    local kind, id, scopes, amount, created, expires = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5]
    local memo = ARGV[at + 7]
    row = row + 1
    if kind == 'book' then
        local told, like = memo == '' and '' or row, scopes .. ' ' .. ARGV[at + 6]
        if alike[like] and redis.pcall('COPY', alike[like], key) == 1 then  -- half the work of fifteen new fields
            redis.call('HSET', key, 'id', id, 'created', created, 'expires', created, 'charged', amount, 'actual', amount,
                'row', row, 'told', told)
        else  -- the first of these scopes, or a server before 6.2
            redis.call('HSET', key, 'id', id, 'created', created, 'expires', created, 'charged', amount, 'actual', amount,
                'row', row, 'told', told, 'scopes', scopes, 'amount', '0', 'state', 'settled', 'verb', 'book',
                'status', ARGV[at + 6], 'late', '0', 'resolved', now, 'warnings', '')
            alike[like] = key
        end
    else
        redis.call('HSET', key, 'id', id, 'scopes', scopes, 'amount', amount, 'created', created, 'expires', expires,
            'state', 'pending', 'row', row, 'told', memo == '' and '' or row)
        redis.call('ZADD', KEYS[4], expires, id)
    end
    redis.call('XADD', KEYS[3], row .. '-0', 'kind', kind, 'id', id, 'at', now, 'amount', amount, 'scopes', scopes,
        'status', ARGV[at + 6], 'created', created, 'settled', kind == 'book' and amount or '0',
        'pending', kind == 'book' and '0' or amount, 'memo', memo)
end

local reply = {'done', now, ''}
local at = 6 + calls * 8
for account = 1, accounts do
    local key, name, cell, first = KEYS[6 + calls + account], ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
    local warn, change = tonumber(string.match(ARGV[at + 3], '^%d+')), tonumber(ARGV[at + 4])
    redis.call('SADD', KEYS[5], name)
    if ARGV[at + 5] ~= '0' then
        redis.call('HINCRBY', key, cell .. ':p', ARGV[at + 5])
    end
    local settled = redis.call('HINCRBY', key, cell .. ':s', ARGV[at + 4])
    if warn and change > 0 then
        if tonumber(cell) ~= first then
            settled = 0
            local fields = redis.call('HGETALL', key)
            for field = 1, #fields, 2 do
                local number = tonumber(string.match(fields[field], '^(%-?%d+):s$'))
                if number and number >= first then
                    settled = settled + fields[field + 1]
                end
            end
        end
        if settled >= warn then
            -- of the lowest once a window, whoever crossed it; of the others whoever crosses them
            local fresh = tonumber(redis.call('HGET', key, 'warned') or -1) < first
            local crossed = fresh and tostring(string.match(ARGV[at + 3], '^%d+')) or nil
            for sum in string.gmatch(ARGV[at + 3], '%d+') do
                if tonumber(sum) <= settled and tonumber(sum) > warn and (fresh or tonumber(sum) > settled - change) then
                    crossed = sum
                end
            end
            if fresh then
                redis.call('HSET', key, 'warned', cell)
            end
            if crossed then
                reply[#reply + 1] = name .. ' ' .. crossed
            end
        end
    end
    at = at + 6
end

local lost, place = {}, 6 + calls + accounts
local function tell(kind, id, amount, scopes, status, created, settled, pending)
    local row = redis.call('INCR', KEYS[2])
    redis.call('HSET', KEYS[place], 'row', row)
    redis.call('HSETNX', KEYS[6], math.floor(now / 3600000), row)
    redis.call('XADD', KEYS[3], row .. '-0', 'kind', kind, 'id', id, 'at', now, 'amount', text(amount), 'scopes', scopes,
        'status', status, 'created', created, 'settled', text(settled), 'pending', text(pending), 'memo', '')
end
for block = 1, blocks do
    place = place + 1
    local id, target, ttl, scopes, created, count = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), ARGV[at + 3],
        ARGV[at + 4], tonumber(ARGV[at + 5])
    local seen = redis.pcall('HMGET', KEYS[place], 'state', 'amount', 'charged', 'expires')  -- a text, where it was archived
    local settled, pending = 0, 0
    if seen[1] == 'pending' then
        target = ttl == 0 and 0 or target
        pending = target - seen[2]
    elseif seen[1] == 'expired' or seen[1] == 'lapsed' then
        -- It was charged whole: what is booked now must not count twice.
        lost[#lost + 1] = id
        settled = math.min(target - (seen[3] or 0), 0)
    elseif ttl > 0 then
        lost[#lost + 1] = id
    end
    for index = 1, count do
        local key, cell = KEYS[place + index], ARGV[at + 5 + index]
        if pending ~= 0 then
            redis.call('HINCRBY', key, cell .. ':p', text(pending))
        end
        if settled ~= 0 then
            redis.call('HINCRBY', key, cell .. ':s', text(settled))
        end
    end
    if seen[1] == 'pending' and ttl == 0 then
        redis.call('HSET', KEYS[place], 'state', 'voided', 'charged', '0', 'verb', 'void', 'actual', '0', 'status', 'void',
            'late', '0', 'resolved', now, 'warnings', '')
        redis.call('ZREM', KEYS[4], id)
        tell('void', id, 0, scopes, 'void', created, 0, pending)
    elseif seen[1] == 'pending' then
        local expires = math.max(now + ttl, tonumber(seen[4]))
        redis.call('HSET', KEYS[place], 'amount', text(target), 'expires', text(expires))
        redis.call('ZADD', KEYS[4], text(expires), id)
        if pending ~= 0 then
            tell('reduce', id, target, scopes, 'reserved', created, 0, pending)
        end
    elseif settled ~= 0 then
        local charged = seen[3] + settled
        redis.call('HSET', KEYS[place], 'charged', text(charged), 'reconciled', now)
        tell('reconcile', id, charged, scopes, 'exact', created, settled, 0)
    end
    at, place = at + 6 + count, place + count
end
reply[3] = table.concat(lost, ' ')
return reply
