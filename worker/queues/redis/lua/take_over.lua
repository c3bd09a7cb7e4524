-- Takes over what consumers held that fell silent; what is no longer in the stream is noted as lost,
-- in the same step, for who has it in hand settles it after all. Answers the ID to go on behind, the
-- entries {id, fields}, and the IDs of the lost ones.
--
-- KEYS: stream, lost, held, taken
-- ARGV: group, consumer, silent for milliseconds, ID to begin behind or '-', count
local stream, lost, held, taken = unpack(KEYS)
local group, consumer, silent_ms, after, at_most = unpack(ARGV)

-- Not XAUTOCLAIM: that of Redis 7 forgets what is gone also where its holder is not silent.
local begin = after == '-' and '-' or '(' .. after
local silent = redis.call('XPENDING', stream, group, 'IDLE', silent_ms, begin, '+', at_most)
local found, gone = {}, {}
for _, pending in ipairs(silent) do
  local id = pending[1]
  local entry = redis.call('XRANGE', stream, id, id)[1]
  if entry then
    -- Whoever has it next may call: what its holder took last is no longer called for by nobody.
    redis.call('HDEL', taken, pending[2])
    redis.call('XCLAIM', stream, group, consumer, 0, id, 'JUSTID')
    found[#found + 1] = entry
  elseif now_ms() - tonumber(redis.call('HGET', held, id) or 0) >= tonumber(silent_ms) then
    lose(stream, group, lost, held, id)
    gone[#gone + 1] = id
  end
end
return {#silent < tonumber(at_most) and '-' or silent[#silent][1], found, gone}
