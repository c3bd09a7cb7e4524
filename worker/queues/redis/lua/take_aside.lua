-- Takes entries of some communities out of the side stream, into the hands of a consumer (R23). Each
-- comes to the end of the stream and is pending for the consumer at once; `claimed` keeps whose it
-- is until its place in the stream is read. Returns where to continue ('-': the end was reached), and
-- the entries {id, fields, ID in the side stream}.
--
-- KEYS: stream, held, held_by_community, topics, uncalled, claimed
-- ARGV: group, consumer, ID to begin after or '-', how many to examine, how many to take,
--       communities...
local stream, aside, by_community, topics, uncalled, claimed = unpack(KEYS)
local group, consumer, after = ARGV[1], ARGV[2], ARGV[3]
local examined_max, taken_max = tonumber(ARGV[4]), tonumber(ARGV[5])

redis.call('XPENDING', stream, group)  -- fails without the group, before anything is changed
local wanted = {}
for at = 6, #ARGV do wanted[ARGV[at]] = true end

local function take(entry, group_id)
  redis.call('XDEL', aside, entry[1])
  add_to(by_community, group_id, -1)
  local fields = {'record', field(entry, 'record'), 'topic-import', field(entry, 'topic-import')}
  local id = redis.call('XADD', stream, '*', unpack(fields))
  redis.call('XCLAIM', stream, group, consumer, 0, id, 'FORCE', 'JUSTID')
  redis.call('HSET', claimed, id, consumer)
  redis.call('SADD', uncalled, id)
  bring_back(topics, field(entry, 'topic_id'), entry[1], id)
  return {id, fields, entry[1]}
end

local page = redis.call('XRANGE', aside, after == '-' and '-' or '(' .. after, '+',
                        'COUNT', examined_max)
local found = {}
for _, entry in ipairs(page) do
  if #found == taken_max then return {after, found} end
  local group_id = field(entry, 'group_id')
  if group_id and wanted[group_id] then found[#found + 1] = take(entry, group_id) end
  after = entry[1]
end
if redis.call('XLEN', aside) == 0 then redis.call('DEL', by_community) end
return {#page < examined_max and '-' or after, found}
