-- Take the rows of closed reservations away, put rows that carry their sums, and keep of each what its id needs.
--
-- KEYS  1 archiving  2 archive  3 seq  4 rows  5 carried  6 moments  7 left  8 readers  9 ledger  10.. a reservation each
-- ARGV  1 who archives  2 for how long more, ms  3 number of rows, then the place of each
--       then for each reservation its id
--       then for each row that carries sums: id, at, amount, scopes, created, memo
-- Reply {'done'} | {'read'}: somebody reads the rows; come again
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return redis.error_reply('another process archives it')
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local last = 3 + tonumber(ARGV[3])
if #redis.call('XRANGE', KEYS[4], ARGV[4], ARGV[4]) == 0 then
    return {'done'}  -- sent twice
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if redis.call('ZCOUNT', KEYS[8], now, '+inf') > 0 then
    return {'read'}
end
local kept = {'scopes', 'amount', 'created', 'expires', 'state', 'charged', 'verb', 'actual', 'status', 'late', 'resolved',
    'reconciled', 'warnings', 'requested'}
local usual = {[5] = 'settled', [7] = 'settle', [9] = 'exact'}
local texts = {}
for index = 10, #KEYS do
    local values = redis.call('HMGET', KEYS[index], unpack(kept))
    values[4] = string.format('%.0f', values[4] - values[3])
    values[11] = string.format('%.0f', (values[11] or 0) - values[3])
    if values[8] == values[6] then
        values[8] = ''
    end
    for place = 1, #kept do
        if not values[place] or values[place] == '0' or values[place] == usual[place] then
            values[place] = ''
        end
    end
    while values[#values] == '' do
        values[#values] = nil
    end
    texts[index] = cjson.encode(values)
end
for at = 4, last do
    redis.call('XDEL', KEYS[4], ARGV[at])
end
for index = 10, #KEYS do
    redis.call('SET', KEYS[index], texts[index])
    last = last + 1
    redis.call('ZREM', KEYS[7], ARGV[last])
end
local carried = 0
for at = last + 1, #ARGV, 6 do
    local row = redis.call('INCR', KEYS[3])
    redis.call('HSETNX', KEYS[6], math.floor(ARGV[at + 1] / 3600000), row)
    redis.call('ZADD', KEYS[5], ARGV[at + 4], row)
    redis.call('XADD', KEYS[4], row .. '-0', 'kind', 'carried', 'id', ARGV[at], 'at', ARGV[at + 1], 'amount', ARGV[at + 2],
        'scopes', ARGV[at + 3], 'status', 'exact', 'created', ARGV[at + 4], 'settled', ARGV[at + 2], 'pending', '0',
        'memo', ARGV[at + 5])
    carried = carried + 1
end
redis.call('HINCRBY', KEYS[2], 'carried', carried)
redis.call('HINCRBY', KEYS[2], 'moved', tonumber(ARGV[3]))
redis.call('HINCRBY', KEYS[2], 'deleted', tonumber(ARGV[3]))
redis.call('HINCRBY', KEYS[9], 'version', 1)  -- who counts rows into a budget at this moment counts them anew
return {'done'}
