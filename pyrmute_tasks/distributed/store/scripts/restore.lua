-- Forget who has claimed a part, and store its input if that is missing and the part not settled:
-- KEYS in, claims, out; ARGV part, frame.
redis.call('HDEL', KEYS[2], ARGV[1])
if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 1 then return 0 end
return redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
