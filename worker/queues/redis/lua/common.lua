-- What the scripts share; it is put before each of them. R1, R2 ... are the rules of
-- docs/queue-rules.md.

local function count(counts, name, by) redis.call('HINCRBY', counts, name, by) end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function field(entry, name)
  for at = 1, #entry[2], 2 do
    if entry[2][at] == name then return entry[2][at + 1] end
  end
end

-- Returns the fields of an entry as consumers get them, and the length of the record (without one:
-- of the entry) if it is longer than `bytes_max`, else 0. Of a longer one only the beginning is
-- returned, so that no consumer loads it. Fields that nobody reads are left out.
local function readable(entry, bytes_max)
  local KEPT_BYTES = 1024
  local record, metadata = field(entry, 'record'), field(entry, 'topic-import')
  if not record then
    local length = 0
    for _, text in ipairs(entry[2]) do length = length + #text end
    if length <= bytes_max then return entry[2], 0 end
    local first, value = entry[2][1], entry[2][2]
    return {string.sub(first, 1, KEPT_BYTES), string.sub(value, 1, KEPT_BYTES)}, length
  end
  local is_long = #record > bytes_max
  local fields = {'record', is_long and string.sub(record, 1, KEPT_BYTES) or record}
  -- What this program writes there is short; cut, it is unreadable, so the record is in doubt.
  if metadata then fields[3], fields[4] = 'topic-import', string.sub(metadata, 1, bytes_max) end
  return fields, is_long and #record or 0
end

-- Compares decimal texts: a number of Lua cannot hold 64 bits.
local function is_greater(a, b)
  if #a ~= #b then return #a > #b end
  return a > b
end

local function is_after(a, b)
  local a_ms, a_number = string.match(a, '(%d+)-(%d+)')
  local b_ms, b_number = string.match(b, '(%d+)-(%d+)')
  if a_ms ~= b_ms then return is_greater(a_ms, b_ms) end
  return is_greater(a_number, b_number)
end

-- The holder of a TopicId in the index (R2): {content, source}, and
--   id: its entry, while it is queued,
--   is_aside: this entry is in the side stream (R23),
--   in_doubt: a call that this entry knows nothing of may have made the topic (R13, R16),
--   is_kept: it was imported, or refused but may exist (R6),
--   letter: it was refused and cannot exist (R5),
--   is_dismissed: a person gave it up, and it may exist (R27),
--   is_compared: a call may have been made for it with other content than this one (R26).
local function holder_of(topics, topic_id)
  local text = topic_id ~= '' and redis.call('HGET', topics, topic_id)
  return text and cjson.decode(text) or nil
end

local function hold(topics, topic_id, holder)
  if topic_id ~= '' then redis.call('HSET', topics, topic_id, cjson.encode(holder)) end
end

-- Returns whether a holder is this entry of the stream.
local function is_entry(holder, id)
  return holder ~= nil and holder.id == id and not holder.is_aside
end

-- Returns whether the holder of a TopicId is this entry of the side stream (R23).
local function is_aside_entry(holder, id)
  return holder ~= nil and holder.is_aside and holder.id == id
end

-- Names the entry of the stream that an entry of the side stream became as the holder.
local function bring_back(topics, topic_id, aside_id, id)
  local holder = holder_of(topics, topic_id)
  if not is_aside_entry(holder, aside_id) then return end
  holder.id, holder.is_aside = id, nil
  hold(topics, topic_id, holder)
end

-- Returns whether Redis no longer has the entry of a queued holder, and no consumer holds it (R16).
local function is_gone(stream, group, aside, holder)
  if not holder or not holder.id or holder.is_kept or holder.letter then return false end
  if holder.is_aside then return #redis.call('XRANGE', aside, holder.id, holder.id) == 0 end
  return #redis.call('XRANGE', stream, holder.id, holder.id) == 0
         and #redis.call('XPENDING', stream, group, holder.id, holder.id, 1) == 0
end

-- What is kept beside an entry that was delivered, by the names of the keys:
--   renewed: when the lease on an entry was renewed that was trimmed away,
--   uncalled: the entries for which nobody called since they were delivered (R22),
--   claimed: who took an entry out of the side stream before its place was read (R23).
local function forget_marks(marks, id)
  redis.call('HDEL', marks.renewed, id)
  redis.call('SREM', marks.uncalled, id)
  redis.call('HDEL', marks.claimed, id)
end

-- Counts a pending entry as lost that is gone from the stream (R16).
local function lose(stream, group, lost, marks, id)
  redis.call('XACK', stream, group, id)
  redis.call('SADD', lost, id)
  forget_marks(marks, id)
end

-- Returns whether an entry that a consumer passed over is still its own.
local function is_ours(stream, group, consumer, topics, id, topic_id)
  local pending = redis.call('XPENDING', stream, group, id, id, 1)
  if #pending > 0 then return pending[1][2] == consumer end
  -- A crash of Redis lost to whom it delivered the entry: it is delivered again.
  if #redis.call('XRANGE', stream, id, id) > 0 then return false end
  return is_entry(holder_of(topics, topic_id), id)
end

-- Adds to a number in a hash that has no field for 0.
local function add_to(hash, name, by)
  if redis.call('HINCRBY', hash, name, by) <= 0 then redis.call('HDEL', hash, name) end
end

-- Counts a dead letter of a community that comes (1) or goes (-1) (R25).
local function count_letter(by_community, letter, by)
  -- A letter of an older version names no community, and was not counted.
  if not letter.group_id then return end
  local name = letter.group_id .. '|' .. letter.reason .. '|' .. letter.code
  if redis.call('HINCRBY', by_community, name, by) == 0 then
    redis.call('HDEL', by_community, name)
  end
end

-- Returns the dead letters of a record, each {id, topic_id, group_id, reason, code, may_exist,
-- is_compared (R26), hash of its line, key as JSON, is_stale (R28)}; the last four may be missing.
local function letters_of(letters, source)
  local text = redis.call('HGET', letters, source)
  return text and cjson.decode(text) or {}
end

local function keep_letters(letters, source, kept)
  if #kept == 0 then
    redis.call('HDEL', letters, source)
  else
    redis.call('HSET', letters, source, cjson.encode(kept))
  end
end

-- Adds a dead letter to its stream and to the letters of its record; returns its ID. `whole`: the
-- record itself, if the line holds only the beginning of it.
local function add_dead_letter(dead, letters, by_community, source, line, letter, whole)
  local fields = {'line', line}
  if whole then fields[3], fields[4] = 'record', whole end
  letter.id = redis.call('XADD', dead, '*', unpack(fields))
  local kept = letters_of(letters, source)
  kept[#kept + 1] = letter
  keep_letters(letters, source, kept)
  count_letter(by_community, letter, 1)
  return letter.id
end

-- Removes a dead letter from its stream, the counts and the index; returns whether it was there.
local function remove_dead_letter(dead, counts, topics, by_community, letter)
  if redis.call('XDEL', dead, letter.id) == 0 then return false end
  count(counts, 'dead', -1)
  count_letter(by_community, letter, -1)
  count(counts, 'reason:' .. letter.reason, -1)
  if letter.code ~= '' then count(counts, 'code:' .. letter.code, -1) end
  local holder = holder_of(topics, letter.topic_id)
  if holder and holder.letter == letter.id then
    redis.call('HDEL', topics, letter.topic_id)
  end
  return true
end

-- Returns the whole record that is kept beside the line of a dead letter, if there is one.
local function whole_record(dead, id)
  local entry = redis.call('XRANGE', dead, id, id)[1]
  return entry and field(entry, 'record')
end

-- Removes a dead letter that a person chose, as `remove_dead_letter` and from the letters of its
-- record; adds what is known of it there: `group_id`, `is_compared`.
local function remove_chosen_letter(dead, counts, topics, letters, by_community, letter)
  local kept = {}
  for _, known in ipairs(letters_of(letters, letter.source)) do
    if known.id == letter.id then
      letter.group_id, letter.is_compared = known.group_id, known.is_compared
    else
      kept[#kept + 1] = known
    end
  end
  if not remove_dead_letter(dead, counts, topics, by_community, letter) then return false end
  keep_letters(letters, letter.source, kept)
  return true
end

-- Returns whether a dead letter is what was read from its line last. `old`: the hash read then.
local function is_of_line(letter, old) return not letter.hash or letter.hash == old end

-- Adds a record to the stream with its metadata; returns the ID of its entry.
local function enqueue(stream, record, metadata)
  return redis.call('XADD', stream, '*', 'record', record,
                    'topic-import', cjson.encode(metadata))
end

