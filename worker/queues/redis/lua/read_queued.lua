-- Reads a page of what is queued, without taking it. Returns for each entry {id, fields, the length of
-- what was cut, else 0, 1 if a consumer has it in its hands, else 0}.
--
-- KEYS: stream, the stream to read (itself or the side stream)
-- ARGV: group, where to begin, how many, the most bytes of a record
local stream, from = KEYS[1], KEYS[2]
local group, begin, at_most, bytes_max = unpack(ARGV)

local found = {}
for _, entry in ipairs(redis.call('XRANGE', from, begin, '+', 'COUNT', at_most)) do
  local fields, length = readable(entry, tonumber(bytes_max))
  local is_taken = from == stream
                   and #redis.call('XPENDING', stream, group, entry[1], entry[1], 1) > 0
  found[#found + 1] = {entry[1], fields, length, is_taken and 1 or 0}
end
return found
