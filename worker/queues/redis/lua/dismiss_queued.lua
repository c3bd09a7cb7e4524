-- Dismisses records that are queued and in nobody's hands (R27); returns how many.
--
-- KEYS: stream, held, held_by_community, dismissed, counts, topics, renewed, uncalled, claimed
-- ARGV: group, then records, each JSON {id, is_aside, topic_id, group_id, content, may_exist,
--       is_compared, line}
local stream, aside, by_community, dismissed, counts, topics = unpack(KEYS)
local marks = {renewed = KEYS[7], uncalled = KEYS[8], claimed = KEYS[9]}
local group = ARGV[1]

local function remove(record)
  if record.is_aside then
    if redis.call('XDEL', aside, record.id) == 0 then return false end
    add_to(by_community, record.group_id, -1)
    return true
  end
  if #redis.call('XPENDING', stream, group, record.id, record.id, 1) > 0 then return false end
  if redis.call('XDEL', stream, record.id) == 0 then return false end
  forget_marks(marks, record.id)
  return true
end

-- Leaves the TopicId, with its doubt, to the next record that has it.
local function leave_topic_id(record)
  local holder = holder_of(topics, record.topic_id)
  if not holder or holder.id ~= record.id or (holder.is_aside or false) ~= record.is_aside then
    return
  end
  if not (record.may_exist or holder.in_doubt) then
    redis.call('HDEL', topics, record.topic_id)
    return
  end
  hold(topics, record.topic_id, {content = holder.content, source = holder.source,
                                 is_dismissed = true, is_compared = record.is_compared or nil})
end

local n = 0
for at = 2, #ARGV do
  local record = cjson.decode(ARGV[at])
  if remove(record) then
    leave_topic_id(record)
    redis.call('XADD', dismissed, '*', 'line', record.line)
    count(counts, 'dismissed', 1)
    n = n + 1
  end
end
return n
