-- Put another name in the place of a scope, in what is kept of some reservations.
-- KEYS: a reservation each. ARGV: the scope, its new name.
local scope, alias = string.gsub(ARGV[1], '%W', '%%%0'), ARGV[2]
local function scopes(text)
    return string.sub(string.gsub(' ' .. text .. ' ', ' ' .. scope .. ' ', ' ' .. alias .. ' '), 2, -2)
end
local function accounts(text)
    return string.sub(string.gsub(',' .. text, ',' .. scope .. ' ', ',' .. alias .. ' '), 2)
end
for index = 1, #KEYS do
    local seen = redis.pcall('HMGET', KEYS[index], 'scopes', 'warnings', 'refusal')
    if seen.err then  -- it was archived
        local values = cjson.decode(redis.call('GET', KEYS[index]))
        values[1] = scopes(values[1])
        values[13] = values[13] and accounts(values[13])
        redis.call('SET', KEYS[index], cjson.encode(values))
    elseif seen[1] then
        redis.call('HSET', KEYS[index], 'scopes', scopes(seen[1]))
        if seen[2] then
            redis.call('HSET', KEYS[index], 'warnings', accounts(seen[2]))
        end
        if seen[3] then
            redis.call('HSET', KEYS[index], 'refusal', accounts(seen[3]))
        end
    end
end
return #KEYS
