-- Uploads of 4 KiB to one job, the argument, under a thousand names for each thread.
require("common")

local piece = string.rep("0123456789abcdef", 256)
local serial, id = 0, nil

function init(arguments)
  id = arguments[1]
end

function request()
  serial = serial + 1
  local name = "t" .. number .. "n" .. serial % 1000
  return wrk.format("POST", "/jobs/" .. id .. "/files" .. query(id, name, "input"), nil, piece)
end
