-- Mark the chunks of a job from an index on as unwanted: KEYS job; ARGV index.
-- A job that has ended must not come back as a key that never expires.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'stop', ARGV[1])
return 1
