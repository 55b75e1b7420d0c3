-- Copy the entries of a stream, under their numbers, into one that takes its place as soon as it has all of them.
--
-- It frees what deleted entries take, which a stream keeps for as long as one entry beside them is there; and it is the
-- way in which the name of a person is replaced.
--
-- KEYS  1 archiving  2 stream  3 copy
-- ARGV  1 who archives  2 for how long more, ms  3 from where: '-', or '(' and the last entry that was copied  4 how many
--       5 field in which a text is replaced, or ''  6 text  7 what is put in its place  8 the last number that is changed, ''
--         for all of them
-- Reply the last entry that was copied, '' where it is done; and how many were changed
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return redis.error_reply('another process archives it')
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local entries = redis.call('XRANGE', KEYS[2], ARGV[3], '+', 'COUNT', ARGV[4])
local last, changed, wanted = '', 0, tonumber(ARGV[8])
for _, entry in ipairs(entries) do
    local fields = entry[2]
    last = entry[1]
    if ARGV[5] ~= '' and (not wanted or tonumber(string.match(last, '^%d+')) <= wanted) then
        for place = 1, #fields, 2 do
            if fields[place] == ARGV[5] then
                local parts, from = {}, 1
                local text = ARGV[5] == 'scopes' and ' ' .. fields[place + 1] .. ' ' or fields[place + 1]
                local first, stop = string.find(text, ARGV[6], 1, true)
                while first do
                    parts[#parts + 1] = string.sub(text, from, first - 1)
                    parts[#parts + 1] = ARGV[7]
                    from = stop + 1
                    first, stop = string.find(text, ARGV[6], from, true)
                end
                if from > 1 then
                    text = table.concat(parts) .. string.sub(text, from)
                    fields[place + 1] = ARGV[5] == 'scopes' and string.sub(text, 2, -2) or text
                    changed = changed + 1
                end
            end
        end
    end
    redis.call('XADD', KEYS[3], last, unpack(fields))
end
if #entries < tonumber(ARGV[4]) then
    redis.call('UNLINK', KEYS[2])
    if redis.call('EXISTS', KEYS[3]) == 1 then
        redis.call('RENAME', KEYS[3], KEYS[2])
    end
    last = ''
end
return {last, changed}
