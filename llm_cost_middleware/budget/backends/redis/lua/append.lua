-- Append lines to journals.
--
-- KEYS  the journal of each line
-- ARGV  1 entries kept of a journal, about; then of each line: id, at, data
for line, key in ipairs(KEYS) do
    local at = 2 + (line - 1) * 3
    redis.call('XADD', key, 'MAXLEN', '~', ARGV[1], '*', 'id', ARGV[at], 'at', ARGV[at + 1], 'data', ARGV[at + 2])
end
