-- Let a worker claim a part: KEYS job, in, claims; ARGV part, its chunk's index, the sealed claimant.
-- Returns the state, and the job's spec if it is claimed. The worker reads the frame beside this,
-- in the same round trip: through a script it would be copied twice more.
local job = redis.call('HMGET', KEYS[1], 'spec', 'stop')
if not job[1] then return {'gone'} end
if job[2] and tonumber(ARGV[2]) >= tonumber(job[2]) then return {'stopped'} end
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return {'settled'} end
local claim = redis.call('TIME')[1] .. ' ' .. ARGV[3]
redis.call('HSET', KEYS[3], ARGV[1], claim)
local ttl = redis.call('PTTL', KEYS[1])
if ttl > 0 then redis.call('PEXPIRE', KEYS[3], ttl) end
return {'claimed', job[1]}
