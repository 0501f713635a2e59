-- GET of one path, the argument, again and again.
require("common")

function init(arguments)
  path = arguments[1]
end

function request()
  return wrk.format("GET", path)
end
