-- Count the other jobs of a queue that have chunks under way: KEYS jobs; ARGV job, seconds after
-- which a job is forgotten, 1 if this job counts itself. How many there are is no reason to fail:
-- a store that is full takes no new member.
local now = tonumber(redis.call('TIME')[1])
redis.pcall('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[2]))
redis.pcall('ZREMRANGEBYSCORE', KEYS[1], now + tonumber(ARGV[2]), '+inf')
redis.pcall('ZREM', KEYS[1], ARGV[1])
local others = redis.pcall('ZCARD', KEYS[1])
if ARGV[3] == '1' then
  redis.pcall('ZADD', KEYS[1], now, ARGV[1])
  redis.pcall('EXPIRE', KEYS[1], 86400)
end
if type(others) ~= 'number' then return 0 end
return others
