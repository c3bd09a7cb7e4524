-- Refreshes the hold on entries that are still this consumer's; answers with how many are not.
--
-- KEYS: stream
-- ARGV: group, consumer, ids...
local group, consumer = ARGV[1], ARGV[2]
local gone = 0
for at = 3, #ARGV do
  local pending = redis.call('XPENDING', KEYS[1], group, ARGV[at], ARGV[at], 1)
  if #pending > 0 and pending[1][2] == consumer then
    -- Redis 7 forgets at a claim whose entry it was, if somebody trimmed it away: its outcome could
    -- not be told from one that was settled already.
    if #redis.call('XRANGE', KEYS[1], ARGV[at], ARGV[at]) > 0 then
      redis.call('XCLAIM', KEYS[1], group, consumer, 0, ARGV[at], 'JUSTID')
    end
  else
    gone = gone + 1
  end
end
return gone
