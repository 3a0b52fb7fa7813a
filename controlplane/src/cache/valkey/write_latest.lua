-- Replaces what stands under a name, whatever its type, with a text and its lifetime, unless a text stands there that is
-- later: whose number behind a member is higher, but not beyond what can be.
-- KEYS[1]: the name. ARGV: lifetime in ms (0: no end), the text, the member's name, the highest number that can be.
local function number(text)
  return type(text) == 'string' and tonumber((string.match(text, '"' .. ARGV[3] .. '":(%d+)')))
end
local there, here = number(redis.pcall('GET', KEYS[1])), number(ARGV[2])
if there and here and there > here and there <= tonumber(ARGV[4]) then return 0 end
if ARGV[1] == '0' then
  redis.call('SET', KEYS[1], ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[1])
end
return 1
