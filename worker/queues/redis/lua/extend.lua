-- Renews the lease on entries that are still this consumer's, and stores the last entry that it
-- knows to have been delivered: a Redis that lost its last second has forgotten that (R14).
--
-- KEYS: stream, delivered, renewed, uncalled, held, topics
-- ARGV: group, consumer, the last entry that this consumer knows to have been delivered, 1 if it may
--       have called for the entries or 0 if it passed them over, then for each entry: id, its ID in
--       the side stream if it came from there, topic_id
local stream, delivered, renewed, uncalled, aside, topics = unpack(KEYS)
local group, consumer, known = ARGV[1], ARGV[2], ARGV[3]
if is_after(known, redis.call('GET', delivered) or '0-0') then
  redis.call('SET', delivered, known)
end

-- A Redis that lost its last second has an entry in the side stream again that this consumer took.
local function put_in_doubt(aside_id, topic_id)
  local holder = holder_of(topics, topic_id)
  local is_back = is_aside_entry(holder, aside_id)
                  and #redis.call('XRANGE', aside, aside_id, aside_id) > 0
  if not is_back then return end
  holder.in_doubt = true
  hold(topics, topic_id, holder)
end

for at = 5, #ARGV, 3 do
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
  elseif #pending == 0 and ARGV[4] == '1' and ARGV[at + 1] ~= '' then
    put_in_doubt(ARGV[at + 1], ARGV[at + 2])
  end
end
