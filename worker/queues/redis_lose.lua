-- Notes entries that are pending but gone from the stream. Who has one in hand settles it after all.
--
-- KEYS: stream, lost
-- ARGV: group, ids...
for at = 2, #ARGV do
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[at])
  redis.call('SADD', KEYS[2], ARGV[at])
end
