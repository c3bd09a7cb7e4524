-- Settles outcomes atomically with the acknowledgement and the counts. An entry that another
-- consumer has taken over, or that is gone, is passed over: answers 1 for each settled, 0 where
-- another consumer holds it, -1 where nobody does. A batch that comes again, because its answer was
-- lost, is answered as before.
--
-- KEYS: stream, imported, dead, counts, topics, letters, lost, batches
-- ARGV: group, consumer, keep_results, name of the batch, then outcomes, each JSON {id, kind,
--       source, topic_id, content, line, reason, code, may_exist, counts, record, ours, is_cut}
local stream, imported, dead, counts, topics, letters, lost, batches = unpack(KEYS)
local group, consumer, keep = ARGV[1], ARGV[2], tonumber(ARGV[3])
local batch = ARGV[4]
local FORGOTTEN_AT_ONCE = 1000

local function standing(id)
  local pending = redis.call('XPENDING', stream, group, id, id, 1)
  if #pending > 0 then return pending[1][2] == consumer and 1 or 0 end
  -- Redis may have forgotten, in a crash, to whom it gave the entry.
  if #redis.call('XRANGE', stream, id, id) > 0 then return 1 end
  -- Trimmed away, and noted as lost by who looked for it; but it was in hand here.
  return redis.call('SREM', lost, id) == 1 and 1 or -1
end

-- Written from the consumer's hand: the entry itself may have been trimmed away.
local function release(outcome)
  redis.call('XADD', stream, '*', 'record', outcome.record, 'topic-import', outcome.ours)
end

-- Whether nobody holds the ID, or this record does: one that is invalid may name another's.
local function may_hold(outcome)
  local holder = holder_of(topics, lost, outcome.topic_id)
  return not holder or holder.letter or holder.source == outcome.source
end

local function bury(outcome, whole)
  local fields = {'line', outcome.line}
  if whole then fields[3], fields[4] = 'record', whole end
  local id = redis.call('XADD', dead, '*', unpack(fields))
  add_letter(letters, outcome.source,
             {id = id, topic_id = outcome.topic_id, reason = outcome.reason, code = outcome.code,
              may_exist = outcome.may_exist})
  if outcome.topic_id ~= '' and outcome.reason ~= 'conflict' and not outcome.may_exist
     and may_hold(outcome) then
    -- It cannot exist, and so holds its ID from nobody.
    hold(topics, outcome.topic_id,
         {content = outcome.content, source = outcome.source, letter = id})
  end
end

local function settle(outcome)
  local entry = outcome.is_cut and redis.call('XRANGE', stream, outcome.id, outcome.id)[1]
  -- First what makes room: a Redis that is full refuses a script's first write if it takes some.
  redis.call('XACK', stream, group, outcome.id)
  redis.call('XDEL', stream, outcome.id)
  if outcome.kind == 'imported' then
    redis.call('XADD', imported, '*', 'line', outcome.line, 'topic_id', outcome.topic_id)
  elseif outcome.kind == 'dead' then
    bury(outcome, entry and field(entry, 'record'))
  else
    release(outcome)
  end
  for _, name in ipairs(outcome.counts) do count(counts, name, 1) end
end

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

local last = redis.call('HGET', batches, consumer)
if last then
  local known = cjson.decode(last)
  if known.name == batch then return known.answers end
end

local answers = {}
for at = 5, #ARGV do
  local outcome = cjson.decode(ARGV[at])
  local answer = standing(outcome.id)
  if answer == 1 then settle(outcome) end
  answers[#answers + 1] = answer
end
forget_the_oldest()
redis.call('HSET', batches, consumer, cjson.encode({name = batch, answers = answers}))
return answers
