-- wrk: POST /recommend for users at random; says what went wrong, if anything did.
--   wrk -s http_recommend.lua URL -- USERS
function init(args)
  users = tonumber(args[1]) or 6040
  math.randomseed(tonumber(tostring({}):match("0x(%x+)"), 16) % 2147483647)
  headers = { ["Content-Type"] = "application/json" }
end

function request()
  return wrk.format("POST", "/recommend", headers, '{"user":' .. math.random(users) .. ',"k":10}')
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('{"requests":%d,"seconds":%.3f,"p50":%d,"p99":%d,"max":%d,"failed":%d}\n', summary.requests,
    summary.duration / 1e6, latency:percentile(50), latency:percentile(99), latency.max,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
