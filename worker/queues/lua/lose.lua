-- Notes own pending entries as lost that are gone from the stream.
--
-- KEYS: stream, lost
-- ARGV: group, ids...
for at = 2, #ARGV do
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[at])
  redis.call('SADD', KEYS[2], ARGV[at])
end
