-- Gives the topics of entries their place in the index of TopicIds (R18), at their delivery or when
-- they are passed over. Returns for each entry two answers. The first: 0 it holds its TopicId or has
-- none, 1 a duplicate (R3; acknowledged and counted here), 2 it holds its TopicId and is in doubt (an
-- earlier entry of the topic was lost, R16, or a doubt was passed on, R13), 3 it was passed over by
-- this consumer and is no longer its own, or the source of the record that holds its TopicId with
-- other content (R4). The second: 1 if this job imported into the community of the entry, else 0.
--
-- KEYS: stream, counts, topics, lost, held, uncalled, communities
-- ARGV: group, consumer, then for each entry: id, topic_id, content, source, group_id, step
local stream, counts, topics, lost, aside, uncalled, communities = unpack(KEYS)
local group, consumer = ARGV[1], ARGV[2]
-- The steps. PASS_OVER: nobody called for the entry. PASS_OVER_IN_DOUBT: perhaps somebody did before.
-- DELIVER: it is called for from now on. DELIVER_LATER: the same, after it was passed over.
local PASS_OVER, DELIVER_LATER = 'pass over', 'deliver later'

local function take_place(entry, in_doubt)
  hold(topics, entry.topic_id, {content = entry.content, source = entry.source, id = entry.id,
                                in_doubt = in_doubt})
  return in_doubt and 2 or 0
end

local function register(entry)
  if entry.step == DELIVER_LATER
     and not is_ours(stream, group, consumer, topics, entry.id, entry.topic_id) then
    return 3
  end
  local holder = holder_of(topics, entry.topic_id)
  if not holder or holder.letter then return take_place(entry, false) end
  -- R27; with other content it is a conflict (R4), because the one that was given up may exist.
  if holder.is_dismissed and holder.content == entry.content then return take_place(entry, true) end
  if is_entry(holder, entry.id) then
    if holder.content ~= entry.content then return take_place(entry, holder.in_doubt) end
    return holder.in_doubt and 2 or 0
  end
  local is_same = holder.content == entry.content
  if is_gone(stream, group, aside, holder) then
    if is_same then redis.call('SREM', lost, holder.id) end
    return take_place(entry, is_same)
  end
  if not is_same then return holder.source end
  redis.call('XACK', stream, group, entry.id)
  redis.call('XDEL', stream, entry.id)
  count(counts, 'duplicate', 1)
  return 1
end

local answers = {}
for at = 3, #ARGV, 6 do
  local entry = {id = ARGV[at], topic_id = ARGV[at + 1], content = ARGV[at + 2],
                 source = ARGV[at + 3], step = ARGV[at + 5]}
  local answer = register(entry)
  if answer ~= 3 then
    -- The next taker must know whether anybody called (R22).
    local is_uncalled = entry.step == PASS_OVER and (answer == 0 or answer == 2)
    redis.call(is_uncalled and 'SADD' or 'SREM', uncalled, entry.id)
  end
  answers[#answers + 1] = answer
  answers[#answers + 1] = redis.call('HEXISTS', communities, ARGV[at + 4])
end
return answers
