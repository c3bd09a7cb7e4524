-- Puts records of one input. Those that were read before are skipped; each other one is queued,
-- counted as a duplicate, or made a dead letter. Returns for each record: 0 read before, 1 new, or
-- the source of the record that holds its TopicId with other content (R4; nothing is changed then).
--
-- KEYS: stream, dead, counts, topics, letters, lost, held, dead_by_community, read
-- ARGV: group, then records, each JSON {can_be_mended, is_in_place, position, path, line, hash, source,
--       key, raw, kind, topic_id, group_id, content, dead, reason, may_exist, asked_again,
--       letter_topic_id}
local stream, dead, counts, topics, letters, lost, aside, by_community, read = unpack(KEYS)
local group = ARGV[1]
local HASH_DIGITS, LINES, RUN_LINES_MAX = 12, 1000000, 10000

local function read_hash(position)
  local from = position * HASH_DIGITS
  local hash = redis.call('GETRANGE', read, from, from + HASH_DIGITS - 1)
  return string.byte(hash, 1) == 0 and '' or hash
end

-- Returns whether a call may have been made for a dead letter with other content than this (R26).
local function was_called_otherwise(letter, content)
  if letter.is_compared or not letter.may_exist then return letter.is_compared end
  local holder = holder_of(topics, letter.topic_id)
  return not holder or holder.content ~= content
end

-- Removes the dead letters of a record that are replaced; returns how many, their doubt (R13), and
-- whether a call may have been made with other content than `content` (R26).
local function remove_dead_letters(source, content, is_replaced)
  local kept, may_exist, n, is_compared = {}, false, 0, nil
  for _, letter in ipairs(letters_of(letters, source)) do
    if is_replaced(letter) then
      is_compared = is_compared or was_called_otherwise(letter, content)
      remove_dead_letter(dead, counts, topics, by_community, letter)
      may_exist = may_exist or letter.may_exist
      n = n + 1
    else
      kept[#kept + 1] = letter
    end
  end
  if n > 0 then keep_letters(letters, source, kept) end
  return n, may_exist, is_compared or nil
end

-- Takes the evidence of their place from the dead letters beside a line that changed: it is not the
-- line any more that stood there when they were read (R28). `step`: -1 above it, 1 below.
local function spoil(record, step)
  for distance = 1, RUN_LINES_MAX do
    local position = record.position + step * distance
    if position < 0 or position >= LINES then return end
    local source = record.path .. ':' .. string.format('%.0f', record.line + step * distance)
    local old, found, is_letter = read_hash(position), letters_of(letters, source), false
    for _, letter in ipairs(found) do
      if is_of_line(letter, old) then letter.is_stale, is_letter = true, true end
    end
    if is_letter then keep_letters(letters, source, found) end
    if old ~= '' and not is_letter then return end
    if old == '' and position * HASH_DIGITS >= redis.call('STRLEN', read) then return end
  end
end

local function put_dead_letter(record)
  add_dead_letter(dead, letters, by_community, record.source, record.dead,
                  {topic_id = record.topic_id, group_id = record.group_id,
                   reason = record.reason, code = '', may_exist = record.may_exist,
                   is_compared = record.is_compared, hash = record.hash, key = record.key})
  count(counts, 'dead', 1)
  count(counts, 'reason:' .. record.reason, 1)
end

local function add(record)
  local id = enqueue(stream, record.raw, {source = record.source, topic_id = record.topic_id,
                                          history = {may_exist = record.may_exist},
                                          is_compared = record.is_compared})
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
  if not holder or holder.letter or holder.is_dismissed then return nil end
  if holder.content == record.content then return nil end
  if record.asked_again and holder.source == record.source then return nil end
  return not is_gone(stream, group, aside, holder) and holder.source or nil
end

local function place(record, replaced)
  if record.kind == 'dead' then return put_dead_letter(record) end
  local holder = holder_of(topics, record.topic_id)
  if not holder then return add(record) end
  if holder.is_dismissed then
    record.may_exist = true
    record.is_compared = holder.is_compared or holder.content ~= record.content or nil
    return add(record)  -- R27
  end
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
    remove_dead_letters(holder.source, record.content,
                        function(letter) return letter.id == holder.letter end)
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
    if letter.reason == 'invalid' and is_of_line(letter, old) then return false end
  end
  return true
end

-- Returns which dead letters of its position a record replaces (R7, R9, R28), as a function of a letter.
local function is_replaced_by(record, old)
  if record.asked_again then
    return function(letter) return letter.topic_id == record.letter_topic_id end
  end
  return function(letter)
    if not record.can_be_mended then return false end
    if old == record.hash then return is_of_line(letter, old) end
    if letter.may_exist then return false end
    local has_key = record.key ~= '' and record.key == letter.key
    local has_id = record.topic_id ~= '' and record.topic_id == letter.topic_id
    return has_key or has_id
           or (record.is_in_place and not letter.is_stale and is_of_line(letter, old))
  end
end

local answers = {}
for index = 1, #ARGV - 1 do
  local record = cjson.decode(ARGV[index + 1])
  local old = read_hash(record.position)
  if is_known(record, old) then
    pass_doubt_on(record, holder_of(topics, record.topic_id))
    answers[index] = 0
  else
    local other = conflict(record)
    if other then
      answers[index] = other
    else
      local replaced, may_exist, is_compared =
        remove_dead_letters(record.source, record.content, is_replaced_by(record, old))
      record.may_exist = record.may_exist or may_exist
      record.is_compared = is_compared
      local is_changed = record.can_be_mended and old ~= '' and old ~= record.hash
      if is_changed and replaced == 0 and redis.call('HLEN', letters) > 0 then
        spoil(record, -1)
        spoil(record, 1)
      end
      place(record, replaced)
      -- A corrected dead letter leaves the hash of its line as it is (R10).
      if not record.asked_again or old == '' then
        redis.call('SETRANGE', read, record.position * HASH_DIGITS, record.hash)
      end
      answers[index] = 1
    end
  end
end
return answers
