-- Puts dead letters back into the stream, each with its TopicId and its doubt; answers how many.
--
-- KEYS: stream, dead, counts, topics, letters
-- ARGV[1]: letters as JSON, each {id, source, topic_id, record, reason, code, may_exist}
local stream, dead, counts, topics, letters = unpack(KEYS)
local n = 0
for _, letter in ipairs(cjson.decode(ARGV[1])) do
  if redis.call('XDEL', dead, letter.id) == 1 then
    redis.call('HINCRBY', counts, 'dead', -1)
    redis.call('HINCRBY', counts, 'reason:' .. letter.reason, -1)
    if letter.code ~= '' then redis.call('HINCRBY', counts, 'code:' .. letter.code, -1) end
    local text = redis.call('HGET', letters, letter.source)
    local kept = {}
    for _, known in ipairs(text and cjson.decode(text) or {}) do
      if known.id ~= letter.id then kept[#kept + 1] = known end
    end
    if #kept == 0 then
      redis.call('HDEL', letters, letter.source)
    else
      redis.call('HSET', letters, letter.source, cjson.encode(kept))
    end
    local holder = letter.topic_id ~= '' and redis.call('HGET', topics, letter.topic_id)
    if holder and cjson.decode(holder).letter == letter.id then
      redis.call('HDEL', topics, letter.topic_id)
    end
    local ours = {source = letter.source, topic_id = letter.topic_id,
                  history = {may_exist = letter.may_exist}}
    redis.call('XADD', stream, '*', 'record', letter.record, 'topic-import', cjson.encode(ours))
    n = n + 1
  end
end
return n
