-- Hold an amount in every account, or in none. Lua does not roll back: everything is read and checked first, then written.
--
-- KEYS  1 budgets  2 seq  3 rows  4 open  5 accounts  6 moments  7 reservation  8.. one hash an account
-- ARGV  1 now in ms, or '' for the server's  2 version of the budgets  3 plan valid from  4 until
--       5 id  6 amount  7 ttl  8 scopes  9 memo  10 '1' if a refusal need not be remembered
--       11 until when, by the server's clock, it may be carried out: a server that was frozen comes too late
--       then for each account: name, cell, first cell that counts, limit or ''; with what it may carry over, as one
--       text: limit, cell of the window before, limit of that window, most that is carried
-- Reply {'held', now} | {'refused', now, account, settled, pending, carried} | {'known', record} | {'stale', now, budgets}
--       | {'late', the server's time}
local now = tonumber(ARGV[1])
if not now then
    local time = redis.call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
end

local clock = redis.call('TIME')
local server = clock[1] * 1000 + math.floor(clock[2] / 1000)
if server > tonumber(ARGV[11]) then
    return {'late', server}
end
local known = redis.pcall('HGETALL', KEYS[7])
if known.err then  -- of an archived reservation a text is left
    known = {'packed', redis.call('GET', KEYS[7]), 'id', ARGV[5]}
end
if #known > 0 then
    return {'known', known}
end
if (redis.call('HGET', KEYS[1], 'version') or '') ~= ARGV[2] or now < tonumber(ARGV[3]) or now >= tonumber(ARGV[4]) then
    return {'stale', now, redis.call('HGETALL', KEYS[1])}
end

local amount = tonumber(ARGV[6])
local old = {}
for index = 8, #KEYS do
    local at = 12 + (index - 8) * 4
    local cell, first, limit = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
    local settled, pending = 0, 0
    if cell == first then
        local sums = redis.call('HMGET', KEYS[index], ARGV[at + 1] .. ':s', ARGV[at + 1] .. ':p')
        settled, pending = tonumber(sums[1] or 0), tonumber(sums[2] or 0)
    else
        local fields = redis.call('HGETALL', KEYS[index])
        for field = 1, #fields, 2 do
            local number, kind = string.match(fields[field], '^(%-?%d+):([sp])$')
            number = tonumber(number)
            if number and number >= first then
                if kind == 's' then
                    settled = settled + fields[field + 1]
                else
                    pending = pending + fields[field + 1]
                end
            elseif number and number < 2 * first - cell then  -- a whole window before the window
                old[#old + 1] = {KEYS[index], fields[field]}
            end
        end
    end
    local carried, whole = 0, ARGV[at + 3]
    if not limit and whole ~= '' then
        local own, before, base, cap = string.match(whole, '^(%d+) (%-?%d+) (%d+) (%d+)$')
        limit = tonumber(own)
        if settled + pending + amount > limit then
            local sums = redis.call('HMGET', KEYS[index], before .. ':s', before .. ':p')
            carried = math.max(math.min(base - (sums[1] or 0) - (sums[2] or 0), tonumber(cap)), 0)
            limit = limit + carried
        end
        whole = string.format('%.0f', limit)
    end
    if limit and settled + pending + amount > limit then
        if ARGV[10] ~= '1' then
            redis.call('HSET', KEYS[7], 'id', ARGV[5], 'scopes', ARGV[8], 'amount', ARGV[6], 'created', now, 'expires', now,
                'state', 'refused', 'refusal', string.format('%s %s %.0f %.0f %.0f', ARGV[at], whole, settled, pending, carried))
        end
        return {'refused', now, index - 8, string.format('%.0f', settled), string.format('%.0f', pending),
            string.format('%.0f', carried)}
    end
end

for index = 8, #KEYS do
    local at = 12 + (index - 8) * 4
    if redis.call('HINCRBY', KEYS[index], ARGV[at + 1] .. ':p', ARGV[6]) == amount then
        redis.call('SADD', KEYS[5], ARGV[at])
    end
end
for _, field in ipairs(old) do
    redis.call('HDEL', field[1], field[2])
end
local expires = now + ARGV[7]
local row = redis.call('INCR', KEYS[2])
redis.call('HSET', KEYS[7], 'id', ARGV[5], 'scopes', ARGV[8], 'amount', ARGV[6], 'created', now, 'expires', expires,
    'state', 'pending', 'row', row, 'told', ARGV[9] == '' and '' or row)
redis.call('ZADD', KEYS[4], expires, ARGV[5])
redis.call('HSETNX', KEYS[6], math.floor(now / 3600000), row)
redis.call('XADD', KEYS[3], row .. '-0', 'kind', 'reserve', 'id', ARGV[5], 'at', now,
    'amount', ARGV[6], 'scopes', ARGV[8], 'status', 'reserved', 'created', now, 'settled', '0', 'pending', ARGV[6],
    'memo', ARGV[9])
return {'held', now}
