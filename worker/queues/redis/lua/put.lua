-- Puts records of one input. Those that were read before are skipped; each other one is queued,
-- counted as a duplicate, or made a dead letter. Returns for each record: 0 read before, 1 new, or
-- the source of the record that holds its TopicId with other content (R4; nothing is changed then).
--
-- KEYS: stream, dead, counts, topics, letters, lost, held, dead_by_community, read
-- ARGV: group, then records, each JSON {is_standard_input, position, hash, source, raw, kind,
--       topic_id, group_id, content, dead, reason, may_exist, asked_again, letter_topic_id}
local stream, dead, counts, topics, letters, lost, aside, by_community, read = unpack(KEYS)
local group = ARGV[1]
local HASH_DIGITS = 12

-- Removes the dead letters of a record that are replaced; returns how many, and their doubt (R13).
local function remove_dead_letters(source, is_replaced)
  local kept, may_exist, n = {}, false, 0
  for _, letter in ipairs(letters_of(letters, source)) do
    if is_replaced(letter) then
      remove_dead_letter(dead, counts, topics, by_community, letter)
      may_exist = may_exist or letter.may_exist
      n = n + 1
    else
      kept[#kept + 1] = letter
    end
  end
  if n > 0 then keep_letters(letters, source, kept) end
  return n, may_exist
end

local function put_dead_letter(record)
  add_dead_letter(dead, letters, by_community, record.source, record.dead,
                  {topic_id = record.topic_id, group_id = record.group_id,
                   reason = record.reason, code = '', may_exist = record.may_exist})
  count(counts, 'dead', 1)
  count(counts, 'reason:' .. record.reason, 1)
end

local function add(record)
  local id = enqueue(stream, record.raw, {source = record.source, topic_id = record.topic_id,
                                          history = {may_exist = record.may_exist}})
  hold(topics, record.topic_id, {content = record.content, source = record.source, id = id})
end

-- Puts the queued entry that stands for a record in doubt if the record is (R13): a dead letter of
-- another queue may be handed in beside the records of its inputs.
local function pass_doubt_on(record, holder)
  local is_queued = holder and holder.id and not holder.letter and not holder.is_kept
  if record.may_exist and is_queued and holder.content == record.content then
    holder.in_doubt = true
    hold(topics, record.topic_id, holder)
  end
end

-- Returns the source of the record that holds the TopicId with other content, if one does (R4).
local function conflict(record)
  if record.kind ~= 'topic' then return nil end
  local holder = holder_of(topics, record.topic_id)
  if not holder or holder.letter or holder.content == record.content then return nil end
  if record.asked_again and holder.source == record.source then return nil end
  return not is_gone(stream, group, aside, holder) and holder.source or nil
end

local function place(record, replaced)
  if record.kind == 'dead' then return put_dead_letter(record) end
  local holder = holder_of(topics, record.topic_id)
  if not holder then return add(record) end
  if is_gone(stream, group, aside, holder) then
    if holder.content == record.content then
      -- The lost record is found again, and a consumer may have called for it (R16).
      redis.call('SREM', lost, holder.id)
      record.may_exist = true
    end
    return add(record)
  end
  if not holder.letter then
    -- The dead letter that this record replaces was in doubt, and kept its TopicId until now (R6).
    if replaced > 0 and holder.source == record.source then return add(record) end
    pass_doubt_on(record, holder)
    return count(counts, 'duplicate', 1)  -- R3
  end
  if holder.content == record.content then
    -- The refused record is tried again as this one, and becomes its duplicate (R5).
    remove_dead_letters(holder.source, function(letter) return letter.id == holder.letter end)
    count(counts, 'duplicate', 1)
  end
  add(record)
end

-- Returns whether a record was read before (R1, R8, R9). `old`: the hash read at its position.
local function is_known(record, old)
  if record.asked_again then
    for _, letter in ipairs(letters_of(letters, record.source)) do
      if letter.topic_id == record.letter_topic_id then return false end
    end
    local holder = holder_of(topics, record.topic_id)
    local is_held_already = holder and not holder.letter and holder.source == record.source
                            and holder.content == record.content
    return old == record.hash or is_held_already
  end
  if old ~= record.hash then return false end
  if record.kind == 'dead' then return true end
  local holder = holder_of(topics, record.topic_id)
  if holder and holder.source == record.source and is_gone(stream, group, aside, holder) then
    return false
  end
  for _, letter in ipairs(letters_of(letters, record.source)) do
    if letter.reason == 'invalid' then return false end
  end
  return true
end

-- Returns which dead letters of its position a record replaces (R7, R9), as a function of a letter.
local function is_replaced_by(record, old)
  if record.asked_again then
    return function(letter) return letter.topic_id == record.letter_topic_id end
  end
  return function(letter)
    return not record.is_standard_input and (not letter.may_exist or old == record.hash)
  end
end

local answers = {}
for index = 1, #ARGV - 1 do
  local record = cjson.decode(ARGV[index + 1])
  local from = record.position * HASH_DIGITS
  local old = redis.call('GETRANGE', read, from, from + HASH_DIGITS - 1)
  if string.byte(old, 1) == 0 then old = '' end
  if is_known(record, old) then
    pass_doubt_on(record, holder_of(topics, record.topic_id))
    answers[index] = 0
  else
    local other = conflict(record)
    if other then
      answers[index] = other
    else
      local replaced, may_exist = remove_dead_letters(record.source, is_replaced_by(record, old))
      record.may_exist = record.may_exist or may_exist
      place(record, replaced)
      -- A corrected dead letter leaves the hash of its line as it is (R10).
      if not record.asked_again or old == '' then
        redis.call('SETRANGE', read, from, record.hash)
      end
      answers[index] = 1
    end
  end
end
return answers
