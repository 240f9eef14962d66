"""The Lua scripts, which run inside Redis. Each takes a bounded number of steps, and all its keys are in KEYS.

Invariants:
- Only the scripts write the lease, and only `CAMPAIGN` gives it to another holder, once it has expired or is gone.
- Each change of the holder has a larger epoch: Redis's own clock in milliseconds, or one more than the largest
  epoch that the new holder has heard of. So epochs grow even if Redis was wiped, or lost the latest lease.
- A beat is told only by the holder, in the same step in which it proves to be the holder.
- A lease of a smaller epoch than a replica has heard of is void, and that replica may take it: the clock of Redis
  was set back, or a failover lost the latest lease. Otherwise, all that know the larger epoch would ignore its
  holder.
- If Redis is out of memory, the lease can still be taken and renewed: Redis refuses memory only to the first write
  of a script, and that is `DEL` or `PEXPIRE`, which need none.
"""

from typing import Final

_OTHERS: Final = """
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local others, told = 0, ''
for version, at_ms, replicas in string.gmatch(redis.call('GET', KEYS[3]) or '', '(%d+) (%d+) (%d+);') do
  if version ~= PROTOCOL and math.abs(now_ms - tonumber(at_ms)) < 2000 then
    others = others + tonumber(replicas)
    told = told .. version .. ' ' .. at_ms .. ' ' .. replicas .. ';'
  end
end
"""
"""Reads which versions of the protocol have a fleet: `VERSION AT_MS REPLICAS;` of each, from its latest beat."""

CAMPAIGN: Final = f"""
local PROTOCOL = ARGV[4]
{_OTHERS}
local lease = redis.call('GET', KEYS[1])
if lease then
  local held, holder = string.match(lease, '^(%d+) (.+)$')
  if holder ~= ARGV[1] and tonumber(held) >= tonumber(ARGV[2]) then
    return {{}}
  end
end
local epoch = string.format('%.0f', math.max(now_ms, tonumber(ARGV[2]) + 1))
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], epoch .. ' ' .. ARGV[1], 'PX', ARGV[3])
local kept = redis.call('HMGET', KEYS[2], 'at_ms', 'beliefs')
local age_ms = 0
if kept[1] then
  age_ms = math.max(0, now_ms - tonumber(kept[1]))
end
return {{epoch, kept[2] or '', string.format('%.0f', age_ms), others}}
"""
"""KEYS: lease, kept, versions. ARGV: replica, largest known epoch, length of the lease in ms, protocol. Returns the
epoch, the kept beliefs, their age in ms, and the number of replicas with another protocol; nothing if another
replica holds the lease."""

RENEW: Final = f"""
local PROTOCOL = ARGV[7]
{_OTHERS}
local lease = redis.call('GET', KEYS[1])
if not lease then
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
  redis.pcall('HSET', KEYS[2], 'at_ms', at_ms, 'beliefs', ARGV[5])
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
