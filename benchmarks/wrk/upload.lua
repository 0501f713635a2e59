-- Uploads of 4 KiB to one job, the argument, each under a name of its own.
require("common")

local piece = string.rep("0123456789abcdef", 256)
local serial, id = 0, nil

function init(arguments)
  id = arguments[1]
end

function request()
  serial = serial + 1
  local name = "t" .. number .. "n" .. serial
  return wrk.format("POST", "/jobs/" .. id .. "/files" .. query(id, name, "input"), nil, piece)
end
