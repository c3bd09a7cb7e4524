-- Counts own pending entries as lost that are gone from the stream (R16).
--
-- KEYS: stream, lost, renewed, uncalled, claimed
-- ARGV: group, ids...
local stream, lost = KEYS[1], KEYS[2]
local marks = {renewed = KEYS[3], uncalled = KEYS[4], claimed = KEYS[5]}
for at = 2, #ARGV do lose(stream, ARGV[1], lost, marks, ARGV[at]) end
