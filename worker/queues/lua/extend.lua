-- Refreshes the hold on entries that are still this consumer's.
--
-- KEYS: stream
-- ARGV: group, consumer, ids...
local stream, group, consumer = KEYS[1], ARGV[1], ARGV[2]
for at = 3, #ARGV do
  local id = ARGV[at]
  local pending = redis.call('XPENDING', stream, group, id, id, 1)
  -- Redis 7 forgets at a claim whose entry it was, if somebody trimmed it away: its outcome could
  -- not be told from one that was settled already.
  if #pending > 0 and pending[1][2] == consumer
     and #redis.call('XRANGE', stream, id, id) > 0 then
    redis.call('XCLAIM', stream, group, consumer, 0, id, 'JUSTID')
  end
end
