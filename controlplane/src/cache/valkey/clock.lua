-- Unix ms by the server's clock, which is the cluster's clock for a key: one server keeps it.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
