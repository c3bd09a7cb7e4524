-- Reads entries that are pending for a consumer. Returns {id, fields, the length of what was cut,
-- else 0} for each, and {id} for one that is no longer in the stream.
--
-- KEYS: stream
-- ARGV: group, consumer, ID to begin after, count, the most bytes of a record
local stream = KEYS[1]
local group, consumer, after, at_most, bytes_max = unpack(ARGV)

local answer = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', at_most, 'STREAMS',
                          stream, after)
local found = {}
for _, entry in ipairs(answer and answer[1][2] or {}) do
  if entry[2] then
    local fields, length = readable(entry, tonumber(bytes_max))
    found[#found + 1] = {entry[1], fields, length}
  else
    found[#found + 1] = {entry[1]}
  end
end
return found
