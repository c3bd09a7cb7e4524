-- Looks at everything at one moment; not as a transaction, which a Redis that is full refuses.
-- Answers the counts as a flat list, how many are lost, and the lengths of the streams.
--
-- KEYS: counts, lost, streams...
local lengths = {}
for at = 3, #KEYS do lengths[#lengths + 1] = redis.call('XLEN', KEYS[at]) end
return {redis.call('HGETALL', KEYS[1]), redis.call('SCARD', KEYS[2]), lengths}
