-- A value of a known type, whole or not at all: its remaining lifetime in ms (-1: no end), then its texts.
-- KEYS[1]: the name. ARGV: type, most parts, most bytes.
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'none' then return {} end
if kind ~= ARGV[1] then return redis.error_reply('WRONGTYPE it holds ' .. kind .. ', not ' .. ARGV[1]) end
local parts, most, texts = 1, tonumber(ARGV[2]), nil
if kind == 'hash' then parts = redis.call('HLEN', KEYS[1]) end
if kind == 'zset' then parts = redis.call('ZCARD', KEYS[1]) end
if parts > most then return redis.error_reply('TOOLARGE it has ' .. parts .. ' members, at most ' .. most .. ' are read') end
if kind == 'hash' then
  texts = redis.call('HGETALL', KEYS[1])
elseif kind == 'zset' then
  texts = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
else
  texts = {redis.call('GET', KEYS[1])}
end
local bytes = 0
for _, text in ipairs(texts) do bytes = bytes + #text end
if bytes > tonumber(ARGV[3]) then
  return redis.error_reply('TOOLARGE it has ' .. bytes .. ' bytes, at most ' .. ARGV[3] .. ' are read')
end
table.insert(texts, 1, tostring(redis.call('PTTL', KEYS[1])))
return texts
