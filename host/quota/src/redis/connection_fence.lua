-- Stands before the scripts of ledgers and sessions where the server hides what tells its lives
-- apart: INFO is answered from their fence key, the last of KEYS, which the script itself does
-- not see.
-- Without the key the data is not what it was: then this is no master to anybody.
local fence_key = table.remove(KEYS)
local server = redis
local redis = {call = function(command, ...)
  if command ~= 'INFO' then
    return server.call(command, ...)
  end
  local id = server.call('GET', fence_key)
  if not id then
    return 'role:unknown\r\n'
  end
  return 'role:master\r\nrun_id:' .. id .. '\r\nmaster_replid:' .. string.rep('0', 40) .. '\r\n'
end}

