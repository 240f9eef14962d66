-- wrk's script: `wrk ... -- METHOD BODY_BYTES`. It prints one line of JSON.
function init(args)
    wrk.method = args[1]
    if tonumber(args[2]) > 0 then
        wrk.body = string.rep("x", tonumber(args[2]))
    end
end

function done(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format(
        '\n{"requests": %d, "duration_us": %d, "failed": %d}\n',
        summary.requests, summary.duration,
        errors.connect + errors.read + errors.write + errors.status + errors.timeout
    ))
end
