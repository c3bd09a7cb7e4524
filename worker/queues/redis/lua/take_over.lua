-- Takes over entries of silent consumers (R15). Those that are no longer in the stream are counted
-- as lost in the same step (R16); a consumer that holds one after all can still settle it. Returns
-- the ID to continue after, the entries {id, fields, the length of what was cut, else 0, 1 if nobody
-- called for it, else 0} (R22), and the IDs of the lost ones.
--
-- KEYS: stream, lost, renewed, taken, uncalled, claimed
-- ARGV: group, consumer, silent for milliseconds, ID to begin after or '-', count, the most bytes of
--       a record
local stream, lost, renewed, taken, uncalled, claimed = unpack(KEYS)
local group, consumer, silent_ms, after, at_most, bytes_max = unpack(ARGV)

-- Not XAUTOCLAIM: in Redis 7 it forgets trimmed entries even of consumers that are not silent.
local begin = after == '-' and '-' or '(' .. after
local silent = redis.call('XPENDING', stream, group, 'IDLE', silent_ms, begin, '+', at_most)
local found, gone = {}, {}
for _, pending in ipairs(silent) do
  local id = pending[1]
  local entry = redis.call('XRANGE', stream, id, id)[1]
  if entry then
    -- The next consumer may call for it, so `taken` may no longer promise that nobody called.
    redis.call('HDEL', taken, pending[2])
    redis.call('XCLAIM', stream, group, consumer, 0, id, 'JUSTID')
    if redis.call('HEXISTS', claimed, id) == 1 then redis.call('HSET', claimed, id, consumer) end
    local fields, length = readable(entry, tonumber(bytes_max))
    found[#found + 1] = {id, fields, length, redis.call('SISMEMBER', uncalled, id)}
  elseif now_ms() - tonumber(redis.call('HGET', renewed, id) or 0) >= tonumber(silent_ms) then
    lose(stream, group, lost, {renewed = renewed, uncalled = uncalled, claimed = claimed}, id)
    gone[#gone + 1] = id
  end
end
return {#silent < tonumber(at_most) and '-' or silent[#silent][1], found, gone}
