-- Dismisses dead letters (R27); returns how many.
--
-- KEYS: stream, dead, dismissed, counts, topics, letters, dead_by_community
-- ARGV: letters, each JSON {id, source, topic_id, reason, code, may_exist, line}
local _, dead, dismissed, counts, topics, letters, by_community = unpack(KEYS)

-- Keeps the doubt under the TopicId for the record that takes it over.
local function leave_topic_id(letter)
  local holder = holder_of(topics, letter.topic_id)
  if not holder or not holder.is_kept or holder.source ~= letter.source then return end
  if letter.reason == 'conflict' or not letter.may_exist then return end
  hold(topics, letter.topic_id, {content = holder.content, source = holder.source,
                                 is_dismissed = true, is_compared = letter.is_compared})
end

local n = 0
for _, argument in ipairs(ARGV) do
  local letter = cjson.decode(argument)
  local whole = whole_record(dead, letter.id)
  if remove_chosen_letter(dead, counts, topics, letters, by_community, letter) then
    leave_topic_id(letter)
    local fields = {'line', letter.line}
    if whole then fields[3], fields[4] = 'record', whole end
    redis.call('XADD', dismissed, '*', unpack(fields))
    count(counts, 'dismissed', 1)
    n = n + 1
  end
end
return n
