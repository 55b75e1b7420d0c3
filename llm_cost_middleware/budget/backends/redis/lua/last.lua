-- The last row of each reservation, and the memo that says what it was for.
--
-- KEYS  1 rows  2.. a reservation each
-- Reply for each {state, row, memo}; empty where it was archived meanwhile, or an older version wrote its rows
local reply = {}
for index = 2, #KEYS do
    local seen = redis.pcall('HMGET', KEYS[index], 'state', 'row', 'told')
    local found = {}
    if not seen.err and seen[1] and seen[2] then
        local row = redis.call('XRANGE', KEYS[1], seen[2] .. '-0', seen[2] .. '-0')[1]
        local told = seen[3] and seen[3] ~= '' and redis.call('XRANGE', KEYS[1], seen[3] .. '-0', seen[3] .. '-0')[1]
        local memo = ''
        if told then
            for field = 1, #told[2], 2 do
                if told[2][field] == 'memo' then
                    memo = told[2][field + 1]
                end
            end
        end
        if row then
            found = {seen[1], row, memo}
        end
    end
    reply[index - 1] = found
end
return reply
