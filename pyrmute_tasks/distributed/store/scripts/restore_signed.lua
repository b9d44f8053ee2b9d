-- As restore.lua, with a secret: what may have been altered is replaced, the input, the spec and
-- the stop mark. KEYS in, claims, out, job; ARGV part, frame, spec, stop mark ('' for none).
if redis.call('EXISTS', KEYS[4]) == 1 then
  redis.call('HSET', KEYS[4], 'spec', ARGV[3])
  redis.call('HDEL', KEYS[4], 'stop')
  if ARGV[4] ~= '' then redis.call('HSET', KEYS[4], 'stop', ARGV[4]) end
end
redis.call('HDEL', KEYS[2], ARGV[1])
if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 1 then return 0 end
return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
