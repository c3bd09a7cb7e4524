-- Renews the lease on entries that are still this consumer's, and stores the last entry that it
-- knows to have been delivered: a Redis that lost its last second has forgotten that (R14).
--
-- KEYS: stream, delivered, held
-- ARGV: group, consumer, the last entry that this consumer knows to have been delivered, ids...
local stream, delivered, held = unpack(KEYS)
local group, consumer, known = ARGV[1], ARGV[2], ARGV[3]
if is_after(known, redis.call('GET', delivered) or '0-0') then
  redis.call('SET', delivered, known)
end
for at = 4, #ARGV do
  local id = ARGV[at]
  local pending = redis.call('XPENDING', stream, group, id, id, 1)
  if #pending > 0 and pending[1][2] == consumer then
    if #redis.call('XRANGE', stream, id, id) > 0 then
      redis.call('XCLAIM', stream, group, consumer, 0, id, 'JUSTID')
    else
      -- Somebody trimmed it away. If it were claimed, Redis 7 would forget whose it was; the time
      -- of the renewal is kept in `held` instead, until the entry is settled.
      redis.call('HSET', held, id, now_ms())
    end
  end
end
