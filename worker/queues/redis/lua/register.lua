-- Gives the topics of delivered entries their place in the index of TopicIds (R18). Returns for
-- each: 0 it holds its TopicId, 1 a duplicate (R3; acknowledged and counted here), 2 it holds its TopicId
-- and is in doubt (an earlier entry of the topic was lost, R16, or a doubt was passed on, R13), or
-- the source of the record that holds its TopicId with other content (R4).
--
-- KEYS: stream, counts, topics, lost
-- ARGV: group, then for each entry: id, topic_id, content, source
local stream, counts, topics, lost = unpack(KEYS)
local group = ARGV[1]

local function take_place(entry, in_doubt)
  hold(topics, entry.topic_id, {content = entry.content, source = entry.source, id = entry.id,
                                in_doubt = in_doubt})
  return in_doubt and 2 or 0
end

local function register(entry)
  local holder = holder_of(topics, entry.topic_id)
  if not holder or holder.letter then return take_place(entry, false) end
  if holder.id == entry.id then
    if holder.content ~= entry.content then return take_place(entry, holder.in_doubt) end
    return holder.in_doubt and 2 or 0
  end
  local is_same = holder.content == entry.content
  if is_gone(stream, group, holder) then
    if is_same then redis.call('SREM', lost, holder.id) end
    return take_place(entry, is_same)
  end
  if not is_same then return holder.source end
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
