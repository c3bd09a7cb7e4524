-- Removes consumers that hold nothing from the group: the one of a name, or all that are idle.
--
-- KEYS: stream, batches, taken
-- ARGV: group, name or '', idle for milliseconds
local LANES_MAX = 15 -- more than settle in any version (settling.py)
local group, name, idle_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], group)) do
  local consumer = {}
  for at = 1, #flat, 2 do consumer[flat[at]] = flat[at + 1] end
  if consumer.pending == 0 and consumer.idle >= idle_ms
     and (name == '' or consumer.name == name) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], group, consumer.name)
    for lane = 1, LANES_MAX do redis.call('HDEL', KEYS[2], consumer.name .. '|' .. lane) end
    redis.call('HDEL', KEYS[2], consumer.name)
    redis.call('HDEL', KEYS[3], consumer.name)
  end
end
