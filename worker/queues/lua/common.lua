-- What the scripts share; it stands before each of them.

local function count(counts, name, by) redis.call('HINCRBY', counts, name, by) end

local function indexed(topics, topic_id)
  local text = topic_id ~= '' and redis.call('HGET', topics, topic_id)
  return text and cjson.decode(text) or nil
end

-- Whether the entry of this holder was taken, and then thrown away by Redis.
local function is_lost(lost, holder)
  return holder and holder.id and redis.call('SISMEMBER', lost, holder.id) == 1
end

-- Who holds a TopicId: {content, source, id of its entry, letter where it was refused}.
local function holder_of(topics, lost, topic_id)
  local holder = indexed(topics, topic_id)
  return not is_lost(lost, holder) and holder or nil
end

-- Whether a topic comes again that was lost; it is lost no longer, but may have been called.
local function is_found_again(topics, lost, topic_id)
  local holder = indexed(topics, topic_id)
  if not is_lost(lost, holder) then return false end
  redis.call('SREM', lost, holder.id)
  redis.call('HDEL', topics, topic_id)
  return true
end

local function hold(topics, topic_id, holder)
  redis.call('HSET', topics, topic_id, cjson.encode(holder))
end

local function field(entry, name)
  for at = 1, #entry[2], 2 do
    if entry[2][at] == name then return entry[2][at + 1] end
  end
end

-- The dead letters of a record, each {id, topic_id, reason, code, may_exist}.
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

local function add_letter(letters, source, letter)
  local kept = letters_of(letters, source)
  kept[#kept + 1] = letter
  keep_letters(letters, source, kept)
end

-- Takes a dead letter out of its stream, the counts, and the index; whether it was there.
local function take_back(dead, counts, topics, letter)
  if redis.call('XDEL', dead, letter.id) == 0 then return false end
  count(counts, 'dead', -1)
  count(counts, 'reason:' .. letter.reason, -1)
  if letter.code ~= '' then count(counts, 'code:' .. letter.code, -1) end
  local holder = indexed(topics, letter.topic_id)
  if holder and holder.letter == letter.id then
    redis.call('HDEL', topics, letter.topic_id)
  end
  return true
end

-- Adds a record to the stream, with what is known of it.
local function enqueue(stream, record, ours)
  redis.call('XADD', stream, '*', 'record', record, 'topic-import', cjson.encode(ours))
end

