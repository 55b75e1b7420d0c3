-- The time of the node that has the keys of a tenant.
-- KEYS  1 any of them
-- Reply seconds, microseconds
return redis.call('TIME')
