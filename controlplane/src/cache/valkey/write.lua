-- Replaces what stands under a name, whatever its type, with its lifetime: one step, so that nobody sees half of it.
-- KEYS[1]: the name. ARGV: type, lifetime in ms (0: no end), then a text, or fields and values, or scores and members.
redis.call('DEL', KEYS[1])
local commands = {hash = 'HSET', zset = 'ZADD'}
if ARGV[1] == 'string' then
  redis.call('SET', KEYS[1], ARGV[3])
else
  for at = 3, #ARGV, 2 do redis.call(commands[ARGV[1]], KEYS[1], ARGV[at], ARGV[at + 1]) end
end
if ARGV[2] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1
