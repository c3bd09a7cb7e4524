-- Gives the next turn of a quota that several processes share, and keeps their common pace.
--
-- A turn is a time on this server's clock; no other clock is compared with it. Turns are evenly
-- spaced, and a caller that is late may take one that is past by no more than `catch_up_us`.
-- The pace follows worker/rules/pace.py: the same formulas, with its constants as arguments.
--
-- KEYS: one hash: next_at, slowed_at, paused_until, round_at (microseconds), slowed_to, wall,
--       round_from (shares), refused_calls, answered, all_refused_since
-- ARGV: rules as JSON {rate_per_s, catch_up_us, look_ahead_us, pace}; `reserve` or `throttled`;
--       how many calls of the caller were not refused since its last request; for `throttled` the
--       turn of the refused call; the time, given only by tests
-- Returns: 1 (a turn is reserved) or 0; the turn, or when to ask again; now; the factor in force
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
  'HMGET', KEYS[1], 'next_at', 'slowed_at', 'paused_until', 'slowed_to', 'wall', 'round_at',
  'round_from', 'refused_calls', 'answered', 'all_refused_since')
local next_at = tonumber(stored[1]) or 0
local slowed_at = tonumber(stored[2]) or 0
local paused_until = tonumber(stored[3]) or 0
local slowed_to = tonumber(stored[4]) or 1
local wall = tonumber(stored[5]) or 1
local round_at = tonumber(stored[6]) or 0
local round_from = tonumber(stored[7]) or 1
local refused = tonumber(stored[8]) or 0
local answered = (tonumber(stored[9]) or 0) + not_refused
local all_refused_since = tonumber(stored[10]) or 0

local function interval_us(factor) return math.ceil(SECOND_US / (rules.rate_per_s * factor)) end

-- If the clock was set back, nobody must wait until it has caught up.
local slowest_us = interval_us(pace.FACTOR_MIN)
if next_at > now + rules.look_ahead_us + slowest_us then next_at = now + SECOND_US end
slowed_at = math.min(slowed_at, now)
round_at = math.min(round_at, now)
all_refused_since = math.min(all_refused_since, now)
paused_until = math.min(paused_until, now + pace.PAUSE_MAX_S * SECOND_US)

local function factor()
  local rested_s = math.max(0, now - math.max(slowed_at, paused_until)) / SECOND_US
  local returned = math.max(0, wall - slowed_to) * (1 - math.exp(-rested_s / pace.RETURN_S))
  return math.min(1, slowed_to + returned + pace.RISE_PER_S2 * rested_s * rested_s)
end

local function throttled()
  local factor = factor()
  local interval_s = 1 / (rules.rate_per_s * factor)
  local share = (refused + 1) / (refused + 1 + answered)
  local one_call = math.min(pace.ONE_CALL_MAX, factor * interval_s)
  local for_others = pace.FOR_OTHERS * factor * (1 - factor)
  slowed_to = math.max(
    pace.FACTOR_MIN, factor - one_call * (1 - share / 2) - for_others * (1 - share))
  local pause_s = math.min(pace.PAUSE_MAX_S, pace.PAUSE_INTERVALS * share * interval_s)
  paused_until = math.max(paused_until, now + math.ceil(pause_s * SECOND_US))
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
    slowed_to = math.max(slowed_to, math.min(factor, round_from * (1 - share)))
    refused = refused + 1
  end
end

local function reserve()
  local at = math.max(next_at, now - rules.catch_up_us, paused_until)
  -- Not further ahead: a turn would be lost if its process dies, and a later pause would miss it.
  if at > now + rules.look_ahead_us then return 0, at - rules.look_ahead_us end
  next_at = at + interval_us(factor())
  return 1, math.max(at, now)
end

local is_reserved, at = 0, now
if mode == 'throttled' then throttled() else is_reserved, at = reserve() end

local function whole(number) return string.format('%.0f', number) end
local function exact(number) return string.format('%.17g', number) end
redis.call(
  'HSET', KEYS[1], 'next_at', whole(next_at), 'slowed_at', whole(slowed_at),
  'paused_until', whole(paused_until), 'slowed_to', exact(slowed_to), 'wall', exact(wall),
  'round_at', whole(round_at), 'round_from', exact(round_from), 'refused_calls', whole(refused),
  'answered', whole(answered), 'all_refused_since', whole(all_refused_since))
redis.call('PEXPIRE', KEYS[1], KEEP_MS + 2 * math.ceil(slowest_us / 1000))
return {is_reserved, at, now, exact(factor())}
