-- Takes over what consumers held that fell silent; what is no longer in the stream is noted as lost,
-- in the same step, for who has it in hand settles it after all. Answers the cursor to go on with,
-- the entries {id, fields}, and the IDs of the lost ones.
--
-- KEYS: stream, lost
-- ARGV: group, consumer, silent for milliseconds, cursor, count
local stream, lost = unpack(KEYS)
local group, consumer, silent_ms, cursor, at_most = unpack(ARGV)
local answer = redis.call('XAUTOCLAIM', stream, group, consumer, silent_ms, cursor, 'COUNT', at_most,
                          'JUSTID')
local found, gone = {}, {}
for _, id in ipairs(answer[2]) do
  local entry = redis.call('XRANGE', stream, id, id)[1]
  if entry then found[#found + 1] = entry else gone[#gone + 1] = id end
end
-- Redis 7 finds them itself.
for _, id in ipairs(answer[3] or {}) do gone[#gone + 1] = id end
for _, id in ipairs(gone) do
  redis.call('XACK', stream, group, id)
  redis.call('SADD', lost, id)
end
return {answer[1], found, gone}
