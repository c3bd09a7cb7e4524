-- Gives the topics of delivered entries their place in the index of TopicIds. Answers for
-- each: 0 it is the topic's first, 1 a duplicate (acknowledged and counted here), 2 it was lost
-- before and may have been called, or the source of the topic that it is in conflict with.
--
-- KEYS: stream, counts, topics, lost
-- ARGV: group, then for each entry: id, topic_id, content, source
local stream, counts, topics, lost = unpack(KEYS)
local group = ARGV[1]

local function register(entry)
  local is_again = is_found_again(topics, lost, entry.topic_id)
  local holder = indexed(topics, entry.topic_id)
  if not holder or holder.letter or holder.source == entry.source then
    if not holder or holder.letter or holder.id ~= entry.id or holder.content ~= entry.content then
      hold(topics, entry.topic_id, {content = entry.content, source = entry.source, id = entry.id})
    end
    return is_again and 2 or 0
  end
  if holder.content ~= entry.content then return holder.source end
  redis.call('XACK', stream, group, entry.id)
  redis.call('XDEL', stream, entry.id)
  count(counts, 'duplicate', 1)
  return 1
end

local answers = {}
for at = 2, #ARGV, 4 do
  answers[#answers + 1] = register({id = ARGV[at], topic_id = ARGV[at + 1],
                                    content = ARGV[at + 2], source = ARGV[at + 3]})
end
return answers
