-- What is kept of a reservation. KEYS: it. ARGV: its id. Reply its fields, empty for none; of an archived one, a packed text.
local fields = redis.pcall('HGETALL', KEYS[1])
if fields.err then
    return {'packed', redis.call('GET', KEYS[1]), 'id', ARGV[1]}
end
return fields
