-- Adds to a number. Its lifetime begins when it does: adding does not prolong it. The sum is answered as text, since a
-- script's own numbers are doubles.
-- KEYS[1]: the name. ARGV: amount, lifetime in ms (0: no end).
local new = redis.call('EXISTS', KEYS[1]) == 0
redis.call('INCRBY', KEYS[1], ARGV[1])
if new and ARGV[2] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return redis.call('GET', KEYS[1])
