-- Counts own pending entries as lost that are gone from the stream (R16).
--
-- KEYS: stream, lost, held
-- ARGV: group, ids...
local stream, lost, held = unpack(KEYS)
for at = 2, #ARGV do lose(stream, ARGV[1], lost, held, ARGV[at]) end
