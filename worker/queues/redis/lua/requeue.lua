-- Puts dead letters back into the stream, each with its TopicId and its doubt; returns how many.
--
-- KEYS: stream, dead, counts, topics, letters, dead_by_community
-- ARGV: letters, each JSON {id, source, topic_id, record, reason, code, may_exist}
local stream, dead, counts, topics, letters, by_community = unpack(KEYS)

local n = 0
for _, argument in ipairs(ARGV) do
  local letter = cjson.decode(argument)
  local record = whole_record(dead, letter.id) or letter.record
  if remove_chosen_letter(dead, counts, topics, letters, by_community, letter) then
    local id = enqueue(stream, record, {source = letter.source, topic_id = letter.topic_id,
                                        history = {may_exist = letter.may_exist},
                                        is_compared = letter.is_compared})
    local holder = holder_of(topics, letter.topic_id)
    if holder and holder.source == letter.source then
      -- A dead letter in doubt kept its TopicId (R6).
      hold(topics, letter.topic_id, {content = holder.content, source = holder.source, id = id})
    end
    n = n + 1
  end
end
return n
