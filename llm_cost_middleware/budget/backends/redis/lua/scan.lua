-- A step of a search for keys, on the node that has the keys of a tenant.
-- KEYS  1 any of them. ARGV  1 cursor  2 pattern  3 how many are looked at, about
-- Reply cursor, keys
return redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
