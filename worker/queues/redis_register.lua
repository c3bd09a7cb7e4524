-- Gives the topics of delivered entries their place in the index of TopicIds. Answers for
-- each: 0 it is the topic's first, 1 a duplicate (acknowledged and counted here), or the source of
-- the topic that it is in conflict with.
--
-- KEYS: stream, counts, topics
-- ARGV: group, then for each entry: id, topic_id, content, source
local stream, counts, topics = unpack(KEYS)
local group = ARGV[1]
local answers = {}
for at = 2, #ARGV, 4 do
  local id, topic_id, content, source = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local text = redis.call('HGET', topics, topic_id)
  local holder = text and cjson.decode(text)
  if holder and not holder.letter and holder.source == source and holder.content == content then
    answers[#answers + 1] = 0
  elseif not holder or holder.letter or holder.source == source then
    redis.call('HSET', topics, topic_id, cjson.encode({content = content, source = source}))
    answers[#answers + 1] = 0
  elseif holder.content == content then
    redis.call('XACK', stream, group, id)
    redis.call('XDEL', stream, id)
    redis.call('HINCRBY', counts, 'duplicate', 1)
    answers[#answers + 1] = 1
  else
    answers[#answers + 1] = holder.source
  end
end
return answers
