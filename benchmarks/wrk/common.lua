-- What the scripts share: each thread's number, its counts, and the figures at the end, in the form that load.py reads.
local threads = {}

function setup(thread)
  thread:set("number", #threads + 1)
  threads[#threads + 1] = thread
end

function query(id, name, kind)
  return "?job_id=" .. id .. "&name=" .. name .. "&type=" .. kind
end

function done(summary, latency)
  local jobs, wrong = 0, 0
  for _, thread in ipairs(threads) do
    jobs = jobs + (thread:get("jobs") or 0)
    wrong = wrong + (thread:get("wrong") or 0)
  end
  local seconds = summary.duration / 1e6
  local errors = summary.errors
  print("figure errors " .. (errors.connect + errors.read + errors.write + errors.status + errors.timeout + wrong))
  print("figure requests_per_s " .. summary.requests / seconds)
  print("figure jobs_per_s " .. jobs / seconds)
  print("figure p50_ms " .. latency:percentile(50) / 1000)
  print("figure p99_ms " .. latency:percentile(99) / 1000)
end
