-- A key's second: the arithmetic of window.rs, line by line; `now` is set before this text.
-- KEYS[1]: ratelimit:<key>. ARGV: limit, want, demand, next (0 or 1), debt, lifetime in ms.
local MAX = 67108864
local function bounded(text) return math.min(tonumber(text), MAX) end
local limit, want, told, debt = bounded(ARGV[1]), bounded(ARGV[2]), bounded(ARGV[3]), bounded(ARGV[5])

local start, taken, demand, before, ahead = now, 0, 0, 0, 0
local kept = redis.call('GET', KEYS[1])
if kept then
  local s, t, d, b, a = string.match(kept, '^(%d+) (%d+) (%d+) (%d+) (%d+)$')
  s, t, d, b, a = tonumber(s), tonumber(t), tonumber(d), tonumber(b), tonumber(a)
  if s and s <= 9007199254740992 and t <= MAX and d <= MAX and b <= MAX and a <= MAX and s - now <= 1000 then
    local age = now - s
    if age < 1000 then
      start, taken, demand, before, ahead = s, t, d, b, a
    elseif age < 2000 then
      start, taken, demand, before, ahead = s + 1000, a, 0, d, 0
    end
  end
end

demand = math.min(demand + told, MAX)
taken = math.min(taken + debt, MAX)
local granted, left
if ARGV[4] == '1' then
  local pool = math.max(0, limit - math.floor(limit / 10) - ahead)
  local known = math.max(demand, before, 1)
  local fair = want
  if known > limit then fair = math.max(1, math.floor(limit * want / known)) end
  granted = math.min(want, pool, fair)
  ahead = ahead + granted
  left = math.max(0, limit - ahead)
else
  local pool = math.max(0, limit - taken)
  granted = math.min(want, pool, math.max(1, math.ceil(pool / 4)))
  taken = taken + granted
  left = pool - granted
end
redis.call('SET', KEYS[1], string.format('%.0f %.0f %.0f %.0f %.0f', start, taken, demand, before, ahead), 'PX', ARGV[6])
return {granted, math.max(0, now - start), left, demand}
