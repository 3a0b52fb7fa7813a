-- Adds members to a sorted set, lets go what is too old or too much, and begins its lifetime anew: one step.
-- KEYS[1]: the name. ARGV: lifetime in ms (0: no end), lowest score that stays, members that stay, then scores and members.
for at = 4, #ARGV, 2 do redis.call('ZADD', KEYS[1], ARGV[at], ARGV[at + 1]) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[2])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -(tonumber(ARGV[3]) + 1))
if ARGV[1] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return 1
