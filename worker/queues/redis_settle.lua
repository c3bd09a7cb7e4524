-- Settles outcomes atomically with the acknowledgement and the counts. An entry that another
-- consumer has taken over, or that is gone, is passed over: answers 1 for each settled, else 0.
-- A batch that comes again, because its answer was lost, is answered as before.
--
-- KEYS: stream, imported, dead, counts, topics, letters, lost, batches
-- ARGV: group, consumer, keep_results, name of the batch, outcomes as JSON, each {id, kind, source, topic_id, content,
--       line, reason, code, may_exist, counts, record, ours}
local stream, imported, dead, counts, topics, letters, lost, batches = unpack(KEYS)
local group, consumer, keep = ARGV[1], ARGV[2], tonumber(ARGV[3])
local batch = ARGV[4]
local FORGOTTEN_AT_ONCE = 1000

local function is_mine(id)
  local pending = redis.call('XPENDING', stream, group, id, id, 1)
  if #pending > 0 then return pending[1][2] == consumer end
  -- Redis may have forgotten, in a crash, to whom it gave the entry.
  if #redis.call('XRANGE', stream, id, id) > 0 then return true end
  -- Trimmed away, and noted as lost by who looked for it; but it was in hand here.
  return redis.call('SREM', lost, id) == 1
end

local function acknowledge(id)
  redis.call('XACK', stream, group, id)
  redis.call('XDEL', stream, id)
end

-- Written from the consumer's hand: the entry itself may have been trimmed away.
local function release(outcome)
  redis.call('XADD', stream, '*', 'record', outcome.record, 'topic-import', outcome.ours)
end

-- Whether nobody holds the ID, or this record does: one that is invalid may name another's.
local function may_hold(outcome)
  local text = redis.call('HGET', topics, outcome.topic_id)
  local holder = text and cjson.decode(text)
  return not holder or holder.letter or holder.source == outcome.source
end

local function bury(outcome)
  local id = redis.call('XADD', dead, '*', 'line', outcome.line)
  local text = redis.call('HGET', letters, outcome.source)
  local kept = text and cjson.decode(text) or {}
  kept[#kept + 1] = {id = id, topic_id = outcome.topic_id, reason = outcome.reason,
                     code = outcome.code, may_exist = outcome.may_exist}
  redis.call('HSET', letters, outcome.source, cjson.encode(kept))
  if outcome.topic_id ~= '' and outcome.reason ~= 'conflict' and not outcome.may_exist
     and may_hold(outcome) then
    -- It cannot exist, and so holds its ID from nobody.
    redis.call('HSET', topics, outcome.topic_id,
               cjson.encode({content = outcome.content, source = outcome.source, letter = id}))
  end
end

local function forget_the_oldest()
  local length = redis.call('XLEN', imported)
  local surplus = math.min(length - keep, FORGOTTEN_AT_ONCE)
  if surplus <= 0 then return end
  for _, entry in ipairs(redis.call('XRANGE', imported, '-', '+', 'COUNT', surplus)) do
    redis.call('HDEL', topics, entry[2][4])
  end
  redis.call('XTRIM', imported, 'MAXLEN', length - surplus)
end

local last = redis.call('HGET', batches, consumer)
if last then
  local known = cjson.decode(last)
  if known.name == batch then return known.answers end
end

local answers = {}
for index, outcome in ipairs(cjson.decode(ARGV[5])) do
  if not is_mine(outcome.id) then
    answers[index] = 0
  else
    if outcome.kind == 'imported' then
      redis.call('XADD', imported, '*', 'line', outcome.line, 'topic_id', outcome.topic_id)
    elseif outcome.kind == 'dead' then
      bury(outcome)
    else
      release(outcome)
    end
    acknowledge(outcome.id)
    for _, name in ipairs(outcome.counts) do redis.call('HINCRBY', counts, name, 1) end
    answers[index] = 1
  end
end
forget_the_oldest()
redis.call('HSET', batches, consumer, cjson.encode({name = batch, answers = answers}))
return answers
