-- Writes fields of a hash if one of them has the value that is expected, and of a number the larger: one step.
-- KEYS[1]: the name. ARGV: the field and its value, then 'number' or 'text', a field and a value, over and over.
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
for at = 3, #ARGV, 3 do
  local present = tonumber(redis.call('HGET', KEYS[1], ARGV[at + 1]) or nil)
  if ARGV[at] == 'text' or not present or present < tonumber(ARGV[at + 2]) then
    redis.call('HSET', KEYS[1], ARGV[at + 1], ARGV[at + 2])
  end
end
return 1
