-- Rows by their numbers. KEYS: rows. ARGV: the numbers. Reply the row of each, or nothing for one that is gone.
local reply = {}
for index = 1, #ARGV do
    reply[index] = redis.call('XRANGE', KEYS[1], ARGV[index] .. '-0', ARGV[index] .. '-0')[1] or {}
end
return reply
