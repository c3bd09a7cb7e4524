-- Reads the counts and the lengths of the streams at one moment. Not a transaction, because a
-- Redis that is full refuses those. Returns the counts as a flat list, the number of lost entries,
-- and the lengths.
--
-- KEYS: counts, lost, streams...
local lengths = {}
for at = 3, #KEYS do lengths[#lengths + 1] = redis.call('XLEN', KEYS[at]) end
return {redis.call('HGETALL', KEYS[1]), redis.call('SCARD', KEYS[2]), lengths}
