-- Settles outcomes atomically with the acknowledgement and the counts (R19). Returns for each:
-- 1 settled; 2 settled before, by a batch whose reply was lost (R17); 0 skipped, because another
-- consumer holds the entry (R15); -1 skipped, because the queue does not know the entry.
--
-- KEYS: stream, imported, dead, counts, topics, letters, lost, batches, held, renewed, uncalled,
--       claimed, communities, dead_by_community, held_by_community
-- ARGV: group, consumer, keep_results, lane (the field of `batches`), then outcomes, each JSON
--       {id, kind, source, topic_id, group_id, aside_id, content, line, reason, code, may_exist, is_compared, hash,
--       key, counts, record, metadata, is_cut}
local stream, imported, dead, counts, topics, letters, lost, batches, aside = unpack(KEYS)
local marks = {renewed = KEYS[10], uncalled = KEYS[11], claimed = KEYS[12]}
local communities, by_community, held_by_community = KEYS[13], KEYS[14], KEYS[15]
local group, consumer, keep, lane = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local FORGOTTEN_AT_ONCE = 1000

local last_batch = {}
for _, id in ipairs(cjson.decode(redis.call('HGET', batches, lane) or '[]')) do
  last_batch[id] = true
end

-- Returns whether the entry is in the side stream again, from where this consumer took it: Redis lost
-- its last second.
local function is_back_aside(outcome)
  local id = outcome.aside_id
  return id ~= '' and #redis.call('XRANGE', aside, id, id) > 0
end

-- Returns the answer for an outcome (see above), before anything is changed.
local function answer_for(outcome)
  local id = outcome.id
  local pending = redis.call('XPENDING', stream, group, id, id, 1)
  if #pending > 0 then return pending[1][2] == consumer and 1 or 0 end
  -- A crash of Redis may have lost to whom it delivered the entry.
  if #redis.call('XRANGE', stream, id, id) > 0 then return 1 end
  if last_batch[id] then return 2 end
  if is_back_aside(outcome) then return 1 end
  -- Trimmed away, and counted as lost by another consumer; but this consumer holds it (R16).
  local was_lost = redis.call('SREM', lost, id) == 1
  local holder = holder_of(topics, outcome.topic_id)
  local is_holder = is_entry(holder, id) and not holder.is_kept
  return (was_lost or is_holder) and 1 or -1
end

-- Adds the record again from what the consumer sent: the entry itself may have been trimmed away.
local function release(outcome)
  local id = redis.call('XADD', stream, '*', 'record', outcome.record, 'topic-import',
                        outcome.metadata)
  local holder = holder_of(topics, outcome.topic_id)
  if is_entry(holder, outcome.id) then
    holder.id = id
    hold(topics, outcome.topic_id, holder)
  end
end

local function import(outcome)
  redis.call('XADD', imported, '*', 'line', outcome.line, 'topic_id', outcome.topic_id)
  redis.call('HINCRBY', communities, outcome.group_id, 1)  -- R24
  if outcome.content ~= '' then
    hold(topics, outcome.topic_id,
         {content = outcome.content, source = outcome.source, is_kept = true})
  end
end

-- Returns whether this record holds its TopicId or may take it: an invalid record may name the
-- TopicId of another.
local function may_hold(outcome)
  local holder = holder_of(topics, outcome.topic_id)
  return not holder or holder.letter or holder.is_dismissed or holder.source == outcome.source
         or is_gone(stream, group, aside, holder)
end

local function settle_dead_letter(outcome, whole)
  local letter = {topic_id = outcome.topic_id, group_id = outcome.group_id,
                  reason = outcome.reason, code = outcome.code, may_exist = outcome.may_exist,
                  is_compared = outcome.is_compared or nil, hash = outcome.hash, key = outcome.key}
  local id = add_dead_letter(dead, letters, by_community, outcome.source, outcome.line, letter, whole)
  if outcome.reason == 'conflict' or not may_hold(outcome) then return end
  -- R6 if it may exist, else R5.
  local holder = {content = outcome.content, source = outcome.source}
  if outcome.may_exist then holder.is_kept = true else holder.letter = id end
  hold(topics, outcome.topic_id, holder)
end

local function settle(outcome)
  local entry = outcome.is_cut and redis.call('XRANGE', stream, outcome.id, outcome.id)[1]
  -- Deleting comes first: a Redis that is full refuses a script whose first write needs memory.
  redis.call('XACK', stream, group, outcome.id)
  redis.call('XDEL', stream, outcome.id)
  forget_marks(marks, outcome.id)
  if outcome.aside_id ~= '' and redis.call('XDEL', aside, outcome.aside_id) == 1 then
    add_to(held_by_community, outcome.group_id, -1)
    bring_back(topics, outcome.topic_id, outcome.aside_id, outcome.id)
  end
  if outcome.kind == 'imported' then
    import(outcome)
  elseif outcome.kind == 'dead' then
    settle_dead_letter(outcome, entry and (field(entry, 'record') or cjson.encode(entry[2])))
  else
    release(outcome)
  end
  for _, name in ipairs(outcome.counts) do count(counts, name, 1) end
end

-- Forgets the oldest imported lines and their TopicIds (R20).
local function forget_the_oldest()
  local length = redis.call('XLEN', imported)
  local surplus = math.min(length - keep, FORGOTTEN_AT_ONCE)
  if surplus <= 0 then return end
  for _, entry in ipairs(redis.call('XRANGE', imported, '-', '+', 'COUNT', surplus)) do
    local topic_id = field(entry, 'topic_id')
    if topic_id then redis.call('HDEL', topics, topic_id) end
  end
  redis.call('XTRIM', imported, 'MAXLEN', length - surplus)
end

local answers, settled = {}, {}
for at = 5, #ARGV do
  local outcome = cjson.decode(ARGV[at])
  local answer = answer_for(outcome)
  if answer == 1 then settle(outcome) end
  if answer > 0 then settled[#settled + 1] = outcome.id end
  answers[#answers + 1] = answer
end
forget_the_oldest()
if #settled > 0 then redis.call('HSET', batches, lane, cjson.encode(settled)) end
return answers
