-- Renews the lease on entries that are still this consumer's, and stores the last entry that it
-- knows to have been delivered: a Redis that lost its last second has forgotten that (R14).
--
-- KEYS: stream, delivered, renewed, uncalled
-- ARGV: group, consumer, the last entry that this consumer knows to have been delivered, 1 if it may
--       have called for the entries or 0 if it passed them over, ids...
local stream, delivered, renewed, uncalled = unpack(KEYS)
local group, consumer, known = ARGV[1], ARGV[2], ARGV[3]
if is_after(known, redis.call('GET', delivered) or '0-0') then
  redis.call('SET', delivered, known)
end
for at = 5, #ARGV do
  local id = ARGV[at]
  local pending = redis.call('XPENDING', stream, group, id, id, 1)
  if #pending > 0 and pending[1][2] == consumer then
    -- A Redis that lost its last second may believe that nobody called (R22).
    if ARGV[4] == '1' then redis.call('SREM', uncalled, id) end
    if #redis.call('XRANGE', stream, id, id) > 0 then
      redis.call('XCLAIM', stream, group, consumer, 0, id, 'JUSTID')
    else
      -- Somebody trimmed it away. If it were claimed, Redis 7 would forget whose it was; the time
      -- of the renewal is kept in `renewed` instead, until the entry is settled.
      redis.call('HSET', renewed, id, now_ms())
    end
  end
end
