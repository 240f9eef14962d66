"""The Lua scripts, which run inside Redis. Each takes a bounded number of steps, and all its keys are in KEYS.

Invariants:
- Only the scripts write the lease, and only `CAMPAIGN` gives it to another holder, once it has expired or is gone.
- Each change of the holder has a larger epoch: Redis's own clock in milliseconds, or one more than the largest
  epoch that the new holder has heard of. So epochs grow even if Redis was wiped, or lost the latest lease.
- A beat is told only by the holder, in the same step in which it proves to be the holder.
- A lease of a smaller epoch than a replica has heard of is void, and that replica may take it: the clock of Redis
  was set back, or a failover lost the latest lease. Otherwise, all that know the larger epoch would ignore its
  holder.
- An epoch that is more than a day ahead of Redis's clock is void, in a lease and in what a replica has heard of: a
  defective replica, or another program, has invented it. If all took it over, epochs would soon end: they are
  smaller than 2^53.
- Other programs may have written anything to these keys. No content or type of them makes a script fail, except in
  `RESIGN`.
- If Redis is out of memory, the lease can still be taken and renewed: Redis refuses memory only to the first write
  of a script, and that is `DEL` or `PEXPIRE`, which need none.
"""

from typing import Final

MAX_AHEAD_MS: Final = 86_400_000
"""Epochs are ahead of the clock of Redis if it was set back, but hardly by more than a day."""
_MAX_VERSIONS_BYTES: Final = 1000
_MAX_KEPT_BYTES: Final = 8 << 20
_MAX_REPLICAS: Final = 1000

_OTHERS: Final = f"""
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local function is_fault(found)
  return type(found) == 'table' and found.err and not string.find(found.err, 'WRONGTYPE', 1, true)
end
local others, told = 0, ''
local versions = redis.pcall('GET', KEYS[3])
if is_fault(versions) then
  return versions
end
if type(versions) ~= 'string' or #versions > {_MAX_VERSIONS_BYTES} then
  versions = ''
end
for version, at_ms, replicas in string.gmatch(versions, '(%d+) (%d+) (%d+);') do
  if version ~= PROTOCOL and math.abs(now_ms - tonumber(at_ms)) < 2000 then
    others = math.min(others + tonumber(replicas), {_MAX_REPLICAS})
    told = told .. version .. ' ' .. at_ms .. ' ' .. replicas .. ';'
  end
end
"""
"""Reads which versions of the protocol have a fleet: `VERSION AT_MS REPLICAS;` of each, from its latest beat."""

CAMPAIGN: Final = f"""
local PROTOCOL = ARGV[4]
{_OTHERS}
local known, latest = tonumber(ARGV[2]), now_ms + {MAX_AHEAD_MS}
if known > latest then
  return {{string.format('%.0f', now_ms)}}
end
local lease = redis.pcall('GET', KEYS[1])
if is_fault(lease) then
  return lease
end
local held, holder = string.match(type(lease) == 'string' and lease or '', '^(%d+) (.+)$')
if held and holder ~= ARGV[1] and tonumber(held) >= known and tonumber(held) <= latest then
  local left_ms = redis.call('PTTL', KEYS[1])
  if left_ms < 0 or left_ms > tonumber(ARGV[3]) then
    redis.pcall('PEXPIRE', KEYS[1], ARGV[3])
  end
  return {{}}
end
local epoch = string.format('%.0f', math.max(now_ms, known + 1))
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], epoch .. ' ' .. ARGV[1], 'PX', ARGV[3])
local kept = redis.pcall('HMGET', KEYS[2], 'at_ms', 'beliefs')
if is_fault(kept) then
  return kept
end
local age_ms = math.min(math.max(0, now_ms - (tonumber(kept[1] or '') or now_ms)), 1e9)
local beliefs = kept[2] or ''
if #beliefs > {_MAX_KEPT_BYTES} then
  beliefs = ''
end
return {{epoch, beliefs, string.format('%.0f', age_ms), others}}
"""
"""KEYS: lease, kept, versions. ARGV: replica, largest known epoch, length of the lease in ms, protocol. Returns the
epoch, the kept beliefs, their age in ms, and the number of replicas with another protocol; nothing if another
replica holds the lease; only the time in ms if no leader can have had the known epoch. A lease that has lost its
expiry gets it back."""

RENEW: Final = f"""
local PROTOCOL = ARGV[7]
{_OTHERS}
local lease = redis.pcall('GET', KEYS[1])
if is_fault(lease) then
  return lease
end
if type(lease) ~= 'string' then
  redis.call('DEL', KEYS[1])
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
elseif lease == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
else
  return -1
end
local at_ms = string.format('%.0f', now_ms)
redis.pcall('SET', KEYS[3], told .. PROTOCOL .. ' ' .. at_ms .. ' ' .. ARGV[8] .. ';', 'PX', 2000)
if ARGV[5] ~= '' then
  local kept = redis.pcall('HSET', KEYS[2], 'at_ms', at_ms, 'beliefs', ARGV[5])
  if type(kept) == 'table' and string.find(kept.err or '', 'WRONGTYPE', 1, true) then
    redis.pcall('DEL', KEYS[2])
    redis.pcall('HSET', KEYS[2], 'at_ms', at_ms, 'beliefs', ARGV[5])
  end
  redis.pcall('PEXPIRE', KEYS[2], ARGV[6])
end
redis.call('PUBLISH', ARGV[3], ARGV[4])
return others
"""
"""KEYS: lease, kept, versions. ARGV: `EPOCH REPLICA`, length of the lease in ms, channel, beat, beliefs to keep or
an empty string, how long to keep them in ms, protocol, replicas of this fleet. Returns the number of replicas with
another protocol, or -1 if another replica holds the lease."""

RESIGN: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
"""
"""KEYS: lease. ARGV: `EPOCH REPLICA`."""


def keys(prefix: str, common_prefix: str) -> tuple[str, str, str]:
    """Returns the keys of `CAMPAIGN` and `RENEW`. Fleets with different protocols share all but the first one."""
    return f"{prefix}:lease", f"{common_prefix}:kept", f"{common_prefix}:versions"
