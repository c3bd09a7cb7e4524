-- The next turns of a quota that several processes share, and the pace they share with it.
--
-- A turn is a time on this server's clock, which no other clock has to agree with. Turns lie evenly
-- apart, and whoever comes late may take one that has passed by no more than `catch_up_us`. A process
-- takes the next ones in a row, and the process that asks after it takes those behind them.
-- The pace is worker/rules/pace.py once more: the same formulas, its constants handed in.
--
-- KEYS: one hash: next_at, slowed_at, paused_until, round_at (microseconds), slowed_to, wall,
--       round_from (shares), refused_calls, answered, all_refused_since, stay (seconds); calls,
--       factors, squares, refused, refused_factors (the trend); passed_since, random_share,
--       random_until, allowance. A field that is missing has its start value.
-- ARGV: rules as JSON {rate_per_s, catch_up_us, look_ahead_us, pace}; `reserve` or `throttled`;
--       how many calls were not refused since the caller last asked; for `reserve` how many turns, for
--       `throttled` the turns of the refused calls, with blanks between; for tests the time, left
--       empty otherwise
-- Answers: how many turns are reserved; the first of them, or when to ask again; now; the factor in
--       force; the microseconds from one turn to the next. A turn that has passed is due now.
local SECOND_US = 1000000
local KEEP_MS = 90000 -- longer than the rate needs to come back from the lowest

local rules, mode = cjson.decode(ARGV[1]), ARGV[2]
local pace = rules.pace
local not_refused, now = tonumber(ARGV[3]), tonumber(ARGV[5])
local turn -- of the refused call that is judged
if not now then
  local time = redis.call('TIME')
  now = time[1] * SECOND_US + time[2]
end

local stored = redis.call(
  'HMGET', KEYS[1], 'next_at', 'slowed_at', 'paused_until', 'slowed_to', 'wall', 'round_at',
  'round_from', 'refused_calls', 'answered', 'all_refused_since', 'stay', 'calls', 'factors',
  'squares', 'refused', 'refused_factors', 'passed_since', 'random_share', 'random_until', 'allowance')
local next_at = tonumber(stored[1]) or 0
local slowed_at = tonumber(stored[2]) or 0
local paused_until = tonumber(stored[3]) or 0
local slowed_to = tonumber(stored[4]) or 1
local wall = tonumber(stored[5]) or 1
local round_at = tonumber(stored[6]) or 0
local round_from = tonumber(stored[7]) or 1
local refused = tonumber(stored[8]) or 0
local answered = tonumber(stored[9]) or 0
local all_refused_since = tonumber(stored[10]) or 0
local stay_s = tonumber(stored[11]) or 0
local trend = {
  calls = tonumber(stored[12]) or 0, factors = tonumber(stored[13]) or 0,
  squares = tonumber(stored[14]) or 0, refused = tonumber(stored[15]) or 0,
  refused_factors = tonumber(stored[16]) or 0}
local passed_since = tonumber(stored[17]) or 0
local random_share = tonumber(stored[18]) or 0
local random_until = tonumber(stored[19]) or 0
local allowance = tonumber(stored[20]) or 0

local function interval_us(factor) return math.ceil(SECOND_US / (rules.rate_per_s * factor)) end

-- A clock that was set back must not hold everybody up until it has caught up.
local slowest_us = interval_us(pace.FACTOR_MIN)
if next_at > now + rules.look_ahead_us + slowest_us then next_at = now + SECOND_US end
slowed_at = math.min(slowed_at, now)
round_at = math.min(round_at, now)
all_refused_since = math.min(all_refused_since, now)
paused_until = math.min(paused_until, now + pace.PAUSE_MAX_S * SECOND_US)
random_until = math.min(random_until, now + pace.RANDOM_S * SECOND_US)

local function factor(at)
  local rested_s = math.max(0, at - math.max(slowed_at, paused_until)) / SECOND_US
  local returned = math.max(0, wall - slowed_to) * (1 - math.exp(-rested_s / pace.RETURN_S))
  local rising_s = math.max(0, rested_s - stay_s)
  return math.min(1, slowed_to + returned + pace.RISE_PER_S2 * rising_s * rising_s)
end

local function stay(all_refused_s)
  if all_refused_s <= pace.ALL_REFUSED_MIN_S then return end
  if stay_s == 0 then wall = math.max(slowed_to, wall * pace.ALL_REFUSED_WALL) end
  if all_refused_s < pace.ALL_REFUSED_MAX_S then
    stay_s = math.min(pace.STAY_MAX_S, math.max(stay_s, pace.STAY_PER_S * all_refused_s))
  end
end

local function passed()
  if not_refused == 0 then return end
  if answered == 0 and refused > 0 then stay((slowed_at - all_refused_since) / SECOND_US) end
  answered = answered + not_refused
  passed_since = passed_since + not_refused
end

local function forget_trend()
  for name in pairs(trend) do trend[name] = 0 end
end

local function add_to_trend()
  local at = turn <= round_at and round_from or factor(turn)
  local calls = passed_since + 1
  local kept = math.max(pace.CALLS_KEPT, pace.KEPT_S * rules.rate_per_s)
  local fading = kept / (kept + calls)
  trend.calls = trend.calls * fading + calls
  trend.factors = trend.factors * fading + calls * at
  trend.squares = trend.squares * fading + calls * at * at
  trend.refused = trend.refused * fading + 1
  trend.refused_factors = trend.refused_factors * fading + at
  passed_since = 0
end

local function judge()
  if now > random_until then random_share = 0 end
  if trend.calls < pace.CALLS_MIN then return end
  local mean, share = trend.factors / trend.calls, trend.refused / trend.calls
  local variance = math.max(pace.VARIANCE_MIN, trend.squares / trend.calls - mean * mean)
  local slope = (trend.refused_factors / trend.calls - mean * share) / variance
  local standard_error = math.sqrt(math.max(0, share * (1 - share)) / (trend.calls * variance))
  local enough = random_share > 0 and pace.DOUBT or pace.SURE
  if slope < -pace.SURE * standard_error then
    forget_trend()
  elseif slope > pace.LIMIT_SLOPE + enough * standard_error then
    forget_trend()
    random_share = 0
  elseif random_share == 0 and share < pace.RANDOM_MAX
    and math.sqrt(variance) > pace.DEVIATION_MIN
    and slope < pace.LIMIT_SLOPE - pace.SURE * standard_error then
    random_share, random_until = share, now + pace.RANDOM_S * SECOND_US
    allowance = pace.ALLOWANCE_MAX
    slowed_to, slowed_at = factor(now), now
    wall = math.max(wall, math.min(1, mean + pace.SPREAD * math.sqrt(variance)))
  end
end

-- Whether a refusal was to be expected whatever the rate.
local function is_allowed(calls)
  if random_share == 0 then
    allowance = 0
    return false
  end
  allowance = math.min(pace.ALLOWANCE_MAX, allowance + pace.ALLOWED * random_share * calls)
  if allowance < 1 then return false end
  allowance = allowance - 1
  return true
end

local function slow_down()
  local factor = factor(now)
  local interval_s = 1 / (rules.rate_per_s * factor)
  local share = (refused + 1) / (refused + 1 + answered)
  local one_call = math.min(pace.ONE_CALL_MAX, factor * interval_s)
  local for_others = pace.FOR_OTHERS * factor * (1 - factor)
  slowed_to = math.max(
    pace.FACTOR_MIN, factor - one_call * (1 - share / 2) - for_others * (1 - share))
  local pause_s = math.min(pace.PAUSE_MAX_S, pace.PAUSE_INTERVALS * share * interval_s)
  paused_until = math.max(paused_until, now + math.ceil(pause_s * SECOND_US))
  if now - slowed_at > pace.ALL_REFUSED_S * SECOND_US then stay_s = 0 end
  slowed_at = now
  if answered > 0 or refused == 0 then all_refused_since = now end
  if turn > round_at then
    wall = math.max(factor, factor + (wall - factor) * (1 + share) / 2)
    if now - all_refused_since > pace.ALL_REFUSED_S * SECOND_US then
      slowed_to = math.max(pace.FACTOR_MIN, slowed_to * pace.ALL_REFUSED_RATE)
      wall = math.max(slowed_to, wall * pace.ALL_REFUSED_WALL)
    end
    round_at, round_from, refused, answered = now, factor, 1, 0
  else
    local is_drained = share <= pace.MOSTLY_REFUSED
    local accepted = is_drained and 1 - share or pace.ALL_REFUSED_RATE
    slowed_to = math.max(slowed_to, math.min(factor, round_from * accepted))
    refused = refused + 1
    if not is_drained then stay((now - round_at) / SECOND_US) end
  end
end

local function throttled()
  local calls = passed_since + 1
  add_to_trend()
  judge()
  if not is_allowed(calls) then slow_down() end
end

local function reserve(wanted)
  local at = math.max(next_at, now - rules.catch_up_us, paused_until)
  -- Bounded: what is reserved far ahead would be lost with its process, and deaf to a pause.
  local latest = now + rules.look_ahead_us
  if at > latest then return 0, at - rules.look_ahead_us, 0 end
  local interval = interval_us(factor(now))
  local reserved = math.min(wanted, 1 + math.floor((latest - at) / interval))
  next_at = at + reserved * interval
  return reserved, at, interval
end

local reserved, first, interval = 0, now, 0
passed()
if mode == 'throttled' then
  for refused_turn in string.gmatch(ARGV[4], '%d+') do
    turn = tonumber(refused_turn)
    throttled()
  end
else
  reserved, first, interval = reserve(tonumber(ARGV[4]))
end

local function whole(number) return string.format('%.0f', number) end
local function exact(number) return string.format('%.17g', number) end
redis.call(
  'HSET', KEYS[1], 'next_at', whole(next_at), 'slowed_at', whole(slowed_at),
  'paused_until', whole(paused_until), 'slowed_to', exact(slowed_to), 'wall', exact(wall),
  'round_at', whole(round_at), 'round_from', exact(round_from), 'refused_calls', whole(refused),
  'answered', whole(answered), 'all_refused_since', whole(all_refused_since), 'stay', exact(stay_s),
  'calls', exact(trend.calls), 'factors', exact(trend.factors), 'squares', exact(trend.squares),
  'refused', exact(trend.refused), 'refused_factors', exact(trend.refused_factors),
  'passed_since', whole(passed_since), 'random_share', exact(random_share),
  'random_until', whole(random_until), 'allowance', exact(allowance))
redis.call('PEXPIRE', KEYS[1], KEEP_MS + 2 * math.ceil(slowest_us / 1000))
return {reserved, first, now, exact(factor(now)), interval}
