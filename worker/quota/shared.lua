-- The next turn of a quota that several processes share, and the pace they share with it.
--
-- A turn is a time on this server's clock, which no other clock has to agree with. Turns lie evenly
-- apart, and whoever comes late may take one that has passed by no more than `catch_up_us`.
-- The pace is worker/pace.py once more: the same formulas, its constants handed in.
--
-- KEYS: one hash: next_at, slowed_at, paused_until (microseconds), slowed_from, slowed_to, refused
--       (shares)
-- ARGV: rules as JSON {rate_per_s, catch_up_us, look_ahead_us, pace}; `reserve` or `throttled`;
--       how many calls were not refused since the caller last asked; for `throttled` the turn;
--       for tests the time, left empty otherwise
-- Answers: 1 a turn is reserved or 0 none; the turn, or when to ask again; now; the factor in force
local SECOND_US = 1000000
local KEEP_MS = 60000 -- longer than the rate needs to come back from the lowest

local rules, mode = cjson.decode(ARGV[1]), ARGV[2]
local pace = rules.pace
local not_refused, turn, now = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
if not now then
  local time = redis.call('TIME')
  now = time[1] * SECOND_US + time[2]
end

local stored = redis.call(
  'HMGET', KEYS[1], 'next_at', 'slowed_at', 'paused_until', 'slowed_to', 'refused',
  'slowed_from')
local next_at = tonumber(stored[1]) or 0
local slowed_at = tonumber(stored[2]) or 0
local paused_until = tonumber(stored[3]) or 0
local slowed_to = tonumber(stored[4]) or 1
local refused = tonumber(stored[5]) or 0
local slowed_from = tonumber(stored[6]) or 1

local function interval_us(factor) return math.ceil(SECOND_US / (rules.rate_per_s * factor)) end

-- A clock that was set back must not hold everybody up until it has caught up.
local slowest_us = interval_us(pace.FACTOR_MIN)
if next_at > now + rules.look_ahead_us + slowest_us then next_at = now + SECOND_US end
slowed_at = math.min(slowed_at, now)
paused_until = math.min(paused_until, now + pace.PAUSE_MAX_S * SECOND_US)

local function factor()
  local rested_s = math.max(0, now - math.max(slowed_at, paused_until)) / SECOND_US
  return math.min(
    1, slowed_to + pace.RISE_PER_S * rested_s + pace.RISE_PER_S2 * rested_s * rested_s)
end

local function answered()
  if refused >= pace.REFUSED_WEIGHT ^ 2 then refused = refused * (1 - pace.REFUSED_WEIGHT) end
end

local function throttled()
  refused = refused + (1 - refused) * pace.REFUSED_WEIGHT
  local by_square = math.min(pace.SLOW_DOWN_MAX, pace.SLOW_DOWN_BY_SQUARE * refused ^ 2)
  if turn <= slowed_at then
    if refused < pace.REFUSED_BY_OTHERS then return end
    slowed_to = math.min(slowed_to, math.max(pace.FACTOR_MIN, slowed_from * (1 - by_square)))
    return
  end
  local factor = factor()
  local least = pace.SLOW_DOWN_MIN + pace.SLOW_DOWN_BESIDE_OTHERS * (1 - factor)
  local slow_down = math.max(least, by_square)
  local pause_s = math.min(1, refused / pace.PAUSE_AT_REFUSED)
    * pace.PAUSE_INTERVALS / (rules.rate_per_s * factor)
  paused_until = now + math.ceil(math.min(pace.PAUSE_MAX_S, pause_s) * SECOND_US)
  slowed_at = now
  slowed_from = factor
  slowed_to = math.max(pace.FACTOR_MIN, factor * (1 - slow_down))
end

local function reserve()
  local at = math.max(next_at, now - rules.catch_up_us, paused_until)
  -- Bounded: what is reserved far ahead would be lost with its process, and deaf to a pause.
  if at > now + rules.look_ahead_us then return 0, at - rules.look_ahead_us end
  next_at = at + interval_us(factor())
  return 1, math.max(at, now)
end

-- Beyond so many the share does not change any more.
for _ = 1, math.min(not_refused, 1000) do answered() end
local is_reserved, at = 0, now
if mode == 'throttled' then throttled() else is_reserved, at = reserve() end

local function whole(number) return string.format('%.0f', number) end
local function exact(number) return string.format('%.17g', number) end
redis.call(
  'HSET', KEYS[1], 'next_at', whole(next_at), 'slowed_at', whole(slowed_at),
  'paused_until', whole(paused_until), 'slowed_from', exact(slowed_from),
  'slowed_to', exact(slowed_to), 'refused', exact(refused))
redis.call('PEXPIRE', KEYS[1], KEEP_MS + 2 * math.ceil(slowest_us / 1000))
return {is_reserved, at, now, exact(factor())}
