-- Moves entries that a consumer passed over from the stream to the side stream (R23), each with its
-- history. Entries that are no longer this consumer's are left alone: others took them over, or an
-- earlier call whose reply was lost moved them. Returns how many were moved.
--
-- KEYS: stream, held, held_by_community, topics, lost, renewed, uncalled, claimed
-- ARGV: group, consumer, then entries, each JSON {id, topic_id, group_id, record, metadata}
local stream, aside, by_community, topics, lost = unpack(KEYS)
local marks = {renewed = KEYS[6], uncalled = KEYS[7], claimed = KEYS[8]}
local group, consumer = ARGV[1], ARGV[2]

redis.call('XPENDING', stream, group)  -- fails without the group, before anything is changed
local n = 0
for at = 3, #ARGV do
  local entry = cjson.decode(ARGV[at])
  if is_ours(stream, group, consumer, topics, entry.id, entry.topic_id) then
    -- Deleting comes first: a Redis that is full refuses a script whose first write needs memory.
    redis.call('XACK', stream, group, entry.id)
    redis.call('XDEL', stream, entry.id)
    redis.call('SREM', lost, entry.id)
    forget_marks(marks, entry.id)
    -- From what the consumer sent: the entry itself may have been trimmed away.
    local id = redis.call('XADD', aside, '*', 'record', entry.record, 'topic-import',
                          entry.metadata, 'group_id', entry.group_id, 'topic_id', entry.topic_id)
    add_to(by_community, entry.group_id, 1)
    local holder = holder_of(topics, entry.topic_id)
    if is_entry(holder, entry.id) then
      holder.id, holder.is_aside = id, true
      hold(topics, entry.topic_id, holder)
    end
    n = n + 1
  end
end
return n
