-- Live records of one moment. KEYS: meta, index. ARGV: prefix of records, then 'get' key, or
-- 'scan' from to limit or 'back' from to limit. Index entries without a record go.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
now = math.max(now, tonumber(redis.call('HGET', KEYS[1], 'clock') or '0'))
local found = {}

local function take(key)
  local row = redis.call('HMGET', ARGV[1] .. key, 'n', 'd', 'v')
  if not row[1] then return false end
  if row[2] ~= '' and tonumber(row[2]) <= now then
    redis.call('HSET', KEYS[1], 'clock', string.format('%.0f', now))
    return true
  end
  found[#found + 1] = key
  found[#found + 1] = row[1]
  found[#found + 1] = row[2]
  found[#found + 1] = row[3]
  return true
end

if ARGV[2] == 'get' then
  take(ARGV[3])
  return found
end
local limit, from, gone = tonumber(ARGV[5]), 0, {}
local call = ARGV[2] == 'scan' and 'ZRANGEBYLEX' or 'ZREVRANGEBYLEX'
while #found < limit * 4 do
  local keys = redis.call(call, KEYS[2], ARGV[3], ARGV[4], 'LIMIT', from, 256)
  if #keys == 0 then break end
  for _, key in ipairs(keys) do
    if #found >= limit * 4 then break end
    if not take(key) then gone[#gone + 1] = key end
  end
  from = from + 256
end
for _, key in ipairs(gone) do redis.call('ZREM', KEYS[2], key) end
return found
