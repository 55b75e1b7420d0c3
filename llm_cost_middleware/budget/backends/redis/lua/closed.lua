-- Which reservations are closed, for an archive that is under way. KEYS: a reservation each. Reply 1 or 0 for each.
local reply = {}
for index = 1, #KEYS do
    local seen = redis.pcall('HGET', KEYS[index], 'archived')
    reply[index] = (type(seen) == 'string') and 1 or 0
end
return reply
