-- Makes the keys of an older version usable. `held` was a hash, which is `renewed` now. Dead letters
-- were not counted by community; the hash that counts them has the field `complete` if it counted
-- from the first one on (R25).
--
-- KEYS: stream, held, renewed, dead, dead_by_community
local held, renewed, dead, by_community = unpack(KEYS, 2)
if redis.call('TYPE', held).ok == 'hash' then redis.call('RENAME', held, renewed) end
if redis.call('HEXISTS', by_community, 'complete') == 0 and redis.call('XLEN', dead) == 0 then
  redis.call('DEL', by_community)
  redis.call('HSET', by_community, 'complete', 1)
end
