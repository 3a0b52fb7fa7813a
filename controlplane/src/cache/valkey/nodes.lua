-- Notes a node as alive at the server's time, forgets those long gone, and says 1 if it is new here and who is alive;
-- `now` is set before.
-- KEYS[1]: cluster:nodes. ARGV: node, alive ms, forget ms, most nodes.
local is_new = redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', now - tonumber(ARGV[3])))
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - tonumber(ARGV[4]))
return {is_new, redis.call('ZRANGEBYSCORE', KEYS[1], string.format('%.0f', now - tonumber(ARGV[2])), '+inf')}
