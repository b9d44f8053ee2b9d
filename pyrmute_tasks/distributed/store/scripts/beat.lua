-- Store a worker's heartbeat with the store's time, and return that: KEYS workers; ARGV worker,
-- the sealed heartbeat.
local now = redis.call('TIME')
local seen = now[1] .. '.' .. string.format('%06d', now[2])
redis.call('HSET', KEYS[1], ARGV[1], seen .. ' ' .. ARGV[2])
redis.call('EXPIRE', KEYS[1], 86400)
return seen
