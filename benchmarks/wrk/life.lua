-- The whole life of trivial jobs, one after another in each thread (which must have one connection):
-- set up, 1 KiB up, submit, poll, 1 KiB down, clean.
require("common")

local input = string.rep("0123456789abcde\n", 64)
local command = "cp%20..%2Finputs%2Fin.txt%20..%2Foutputs%2Fout.txt"
local step, serial, id = "set_up", 0, nil
jobs, wrong = 0, 0

function request()
  if step == "set_up" then
    serial = serial + 1
    id = "b" .. run .. "t" .. number .. "n" .. serial
    return wrk.format("POST", "/jobs?job_id=" .. id)
  elseif step == "upload" then
    return wrk.format("POST", "/jobs/" .. id .. "/files" .. query(id, "in.txt", "input"), nil, input)
  elseif step == "submit" then
    return wrk.format("POST", "/jobs/" .. id .. "/submit?job_id=" .. id .. "&command_line=" .. command)
  elseif step == "poll" then
    return wrk.format("GET", "/jobs/" .. id .. "/status?job_id=" .. id)
  elseif step == "download" then
    return wrk.format("GET", "/jobs/" .. id .. "/files" .. query(id, "out.txt", "output"))
  end
  return wrk.format("DELETE", "/jobs/" .. id .. "?job_id=" .. id)
end

local after = { set_up = "upload", upload = "submit", submit = "poll", download = "clean", clean = "set_up" }

function response(status, headers, body)
  if status ~= 200 then wrong = wrong + 1 end
  if step == "poll" then
    if body:find('"complete":%s*"true"') then
      if not body:find('"returncode":%s*0') then wrong = wrong + 1 end
      step = "download"
    end
    return
  end
  if step == "download" and body ~= input then wrong = wrong + 1 end
  if step == "clean" then jobs = jobs + 1 end
  step = after[step]
end

-- Ten milliseconds between polls, nothing else waits.
function delay()
  return step == "poll" and 10 or 0
end

-- The argument makes the ids of this run different from those of earlier runs on the same server.
function init(arguments)
  run = arguments[1]
end
