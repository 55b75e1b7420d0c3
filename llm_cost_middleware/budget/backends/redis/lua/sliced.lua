-- A step of a call that slices pay for, with what it changes in their holds: all in one.
--
-- KEYS  those of the step; then for each slice, the outermost first: its hold, the hash of its account, and one hash for
--       each account of its hold
-- ARGV  those of the step; then a text in JSON: how many keys and arguments are the step's, 'draw' with the amount and
--       the lifetime (ms) of a reserve, and of each slice: id, limit, cell of its account, scopes, created, cells
-- Reply as the step's; {'ended', settled, pending}: the innermost slice holds nothing any more
local layout = cjson.decode(ARGV[#ARGV])
local step_keys, step_args = {}, {}
for index = 1, layout.keys do
    step_keys[index] = KEYS[index]
end
for index = 1, layout.args do
    step_args[index] = ARGV[index]
end
local at = layout.keys + 1
for _, slice in ipairs(layout.slices) do
    slice.at = at
    at = at + 2 + #slice.cells
end

local function step(KEYS, ARGV)
--STEP--
end

local function text(number)
    return string.format('%.0f', number)
end

local function sums(slice)
    local found = redis.call('HMGET', KEYS[slice.at + 1], slice.cell .. ':s', slice.cell .. ':p')
    return tonumber(found[1] or 0), tonumber(found[2] or 0)
end

local function hold(slice, before, after)
    for index, cell in ipairs(slice.cells) do
        redis.call('HINCRBY', KEYS[slice.at + 1 + index], cell .. ':p', text(after - before))
    end
    redis.call('HSETNX', KEYS[slice.at], 'requested', text(before))
    redis.call('HSET', KEYS[slice.at], 'amount', text(after))
end

local function tell(slice, before, after, now)
    local row = redis.call('INCR', step_keys[2])
    redis.call('HSET', KEYS[slice.at], 'row', row)
    redis.call('HSETNX', step_keys[6], math.floor(now / 3600000), row)
    redis.call('XADD', step_keys[3], row .. '-0', 'kind', 'reduce', 'id', slice.id, 'at', now,
        'amount', text(after), 'scopes', slice.scopes, 'status', 'reserved', 'created', text(slice.created), 'settled', 0,
        'pending', text(after - before), 'memo', '')
end

if not layout.draw then
    local reply = step(step_keys, step_args)
    if reply[1] == 'done' then
        for index = #layout.slices, 1, -1 do
            local slice = layout.slices[index]
            local seen = redis.pcall('HMGET', KEYS[slice.at], 'state', 'amount')  -- a text, where it was archived
            if seen[1] == 'pending' then
                local settled, pending = sums(slice)
                local before, after = tonumber(seen[2]), math.max(slice.limit - settled - pending, 0)
                if before ~= after then
                    hold(slice, before, after)
                    tell(slice, before, after, reply[2])
                end
            end
        end
    end
    return reply
end

if redis.call('EXISTS', step_keys[7]) == 1 then  -- a replay
    return step(step_keys, step_args)
end
local inner = layout.slices[#layout.slices]
local seen = redis.pcall('HMGET', KEYS[inner.at], 'state', 'amount', 'expires')  -- a text, where it was archived
if seen[1] ~= 'pending' then
    local settled, pending = sums(inner)
    return {'ended', text(settled), text(pending)}
end
local before = tonumber(seen[2])
local after = math.max(before - layout.draw.amount, 0)
hold(inner, before, after)
local reply = step(step_keys, step_args)
if reply[1] ~= 'held' then
    hold(inner, after, before)
    return reply
end
tell(inner, before, after, reply[2])
local alive = reply[2] + layout.draw.ttl  -- whoever spends from it is alive
if alive > tonumber(seen[3]) then
    redis.call('HSET', KEYS[inner.at], 'expires', text(alive))
    redis.call('ZADD', step_keys[4], text(alive), inner.id)
end
return reply
