-- One commit: guards first, then deadlines, then everything or nothing.
-- KEYS: meta, index, log. ARGV: prefix of records, log on, most changes, oldest ms, most bytes
-- (or -1), then operations: 'P' key value kind ms | 'D' key | 'E' key kind version.
local prefix, logged = ARGV[1], ARGV[2] == '1'
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
now = math.max(now, tonumber(redis.call('HGET', KEYS[1], 'clock') or '0'))
local MAX = 9007199254740991

local function live(key)
  local found = redis.call('HMGET', prefix .. key, 'n', 'd')
  if not found[1] then return nil end
  if found[2] ~= '' and tonumber(found[2]) <= now then
    redis.call('HSET', KEYS[1], 'clock', string.format('%.0f', now))
    return nil
  end
  return found
end

local ops, deadlines, at = {}, {}, 6
while at <= #ARGV do
  local kind = ARGV[at]
  local size = kind == 'P' and 5 or kind == 'D' and 2 or 4
  ops[#ops + 1] = { kind, at }
  if kind == 'E' then
    local found = live(ARGV[at + 1])
    local want = ARGV[at + 2]
    local holds
    if want == 'absent' then holds = not found
    elseif want == 'any' then holds = found ~= nil
    else holds = found ~= nil and found[1] == ARGV[at + 3] end
    if not holds then
      return { 'conflict', ARGV[at + 1], found and found[1] or '' }
    end
  end
  at = at + size
end

for i, op in ipairs(ops) do
  if op[1] == 'P' then
    local kind, ms = ARGV[op[2] + 3], tonumber(ARGV[op[2] + 4])
    local deadline = ''
    if kind == 'for' then
      deadline = math.min(now + ms, MAX)
    elseif kind == 'until' then
      if ms <= now then return { 'passed' } end
      deadline = math.min(ms, MAX)
    elseif kind == 'keep' then
      local found = live(ARGV[op[2] + 1])
      if found and found[2] ~= '' then deadline = tonumber(found[2]) end
    end
    deadlines[i] = deadline
  end
end

local seq = tonumber(redis.call('HGET', KEYS[1], 'seq') or '0')
local bytes = tonumber(redis.call('HGET', KEYS[1], 'bytes') or '0')

local function note(kind, key)
  seq = seq + 1
  if logged then
    redis.call('XADD', KEYS[3], string.format('%.0f-0', seq), 'o', kind, 'k', key,
      't', string.format('%.0f', now))
    bytes = bytes + #key
  end
end

for i, op in ipairs(ops) do
  local kind, key = op[1], ARGV[op[2] + 1]
  if kind == 'P' then
    note('P', key)
    local deadline = deadlines[i]
    local text = deadline == '' and '' or string.format('%.0f', deadline)
    redis.call('HSET', prefix .. key, 'v', ARGV[op[2] + 2], 'n', string.format('%.0f', seq), 'd', text)
    if deadline == '' or deadline > 4102444800000 then
      redis.call('PERSIST', prefix .. key)
    else
      redis.call('PEXPIREAT', prefix .. key, string.format('%.0f', deadline + 5000))
    end
    redis.call('ZADD', KEYS[2], 0, key)
  elseif kind == 'D' and live(key) then
    note('D', key)
    redis.call('DEL', prefix .. key)
    redis.call('ZREM', KEYS[2], key)
  end
end

if logged then
  local most, oldest, size = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
  local kept = redis.call('XLEN', KEYS[3])
  for _ = 1, 64 + #ops do
    if kept <= 1 then break end
    local first = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', 1)[1]
    local over = kept > most or (oldest >= 0 and now - tonumber(first[2][6]) > oldest)
      or (size >= 0 and bytes > size)
    if not over then break end
    redis.call('XDEL', KEYS[3], first[1])
    bytes = bytes - #first[2][4]
    kept = kept - 1
  end
end
redis.call('HSET', KEYS[1], 'seq', string.format('%.0f', seq), 'bytes', string.format('%.0f', bytes))
return { 'done', string.format('%.0f', seq) }
