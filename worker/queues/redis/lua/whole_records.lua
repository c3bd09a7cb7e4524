-- Returns for each dead letter the whole record that is kept beside its line, its length if that is
-- too long, or 0 if there is none.
--
-- KEYS: stream, dead
-- ARGV: the most bytes of a record, then IDs
local dead, bytes_max = KEYS[2], tonumber(ARGV[1])

local found = {}
for at = 2, #ARGV do
  local entry = redis.call('XRANGE', dead, ARGV[at], ARGV[at])[1]
  local record = entry and field(entry, 'record')
  if record and #record > bytes_max then record = #record end
  found[#found + 1] = record or 0
end
return found
