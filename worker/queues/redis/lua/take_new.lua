-- Delivers new entries to a consumer. Returns how many places of the stream were read, and
-- {id, fields, 1 if a consumer had it before, else 0, the length of what was cut, else 0} for each
-- entry: a group that was made anew, or that lost its last second in a crash, delivers entries
-- again (R14).
--
-- KEYS: stream, delivered, taken, claimed
-- ARGV: group, consumer, its process, count, the last entry that it knows to have been delivered,
--       the most bytes of a record
local stream, delivered, taken, claimed = unpack(KEYS)
local group, consumer, process, at_most, known, bytes_max = unpack(ARGV)

local last = redis.call('GET', delivered) or '0-0'
if is_after(known, last) then last = known end
local answer = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', at_most, 'STREAMS',
                          stream, '>')
if not answer then return {0, {}} end
local found, new, newest = {}, {}, last
local before = cjson.decode(redis.call('HGET', taken, consumer) or '{}')
if before.process == process then
  for _, id in ipairs(before.new) do
    if is_after(id, known) then new[#new + 1] = id end
  end
end
for _, entry in ipairs(answer[1][2]) do
  local id = entry[1]
  local is_new = is_after(id, last)
  local owner = redis.call('HGET', claimed, id)
  if owner then
    -- It was taken out of the side stream before this place was read, and stays with that taker.
    redis.call('XCLAIM', stream, group, owner, 0, id, 'JUSTID')
    redis.call('HDEL', claimed, id)
  else
    local fields, length = readable(entry, tonumber(bytes_max))
    found[#found + 1] = {id, fields, is_new and 0 or 1, length}
    if is_new then new[#new + 1] = id end
  end
  if is_new then newest = id end
end
redis.call('SET', delivered, newest)
-- Nobody has called for these if this reply, or the replies before it, never arrive (R14).
redis.call('HSET', taken, consumer, cjson.encode({process = process, new = new}))
return {#answer[1][2], found}
