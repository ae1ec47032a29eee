-- Counters and holds of one administration: everything that reads and writes them, in one atomic call.
--
-- KEYS: counters (hash), holds (hash), expiries (sorted set); one slot, by the hash tag of the administration.
-- ARGV: operation, its arguments (MessagePack).
--
-- A counter is {start, end, used, held} for a period (end 0: it never ends), or {cell, used x 7, held x 7} for a minute:
-- cells of 10 s, newest first. Seven of them cover any 60 s whole, so that no 60 s ever exceed a limit.
-- A hold is {state, digest, ends_at, granted, entries, reply}; an entry {field, is_minute, start or cell, meter,
-- per_output, held, used}. States: o open, c committed (until its event is in the ledger), s settled, r released,
-- x expired. The counters' field `#` is {epoch, operations, mark, limits}: which building of the counters this is, how often
-- it was written, how far the ledger is in it, and for which limits it was built.

local counters, holds, expiries = KEYS[1], KEYS[2], KEYS[3]
local operation, given = ARGV[1], cmsgpack.unpack(ARGV[2])

local CELL_MS, CELLS = 10000, 7
local PURGED_MAX, SWEPT = 16, 20
local KEPT_MS = 3600000          -- a state that absorbs is remembered for an hour
local UNCONFIRMED_MS = 86400000  -- a commit without an event is taken back after a day: the ledger is the truth

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local meta            -- {epoch, operations, mark, limits}
local loaded = {}     -- field to counter
local touched = {}    -- fields to be written
local new_holds = {}  -- id to hold, or false where it is gone

-- Counters

local function unpacked(text) return text and cmsgpack.unpack(text) end

local function preload(fields)
    local missing = {'#'}
    for _, field in ipairs(fields) do
        if loaded[field] == nil then missing[#missing + 1] = field end
    end
    local found = redis.call('HMGET', counters, unpack(missing))
    meta = meta or unpacked(found[1])
    for place = 2, #missing do loaded[missing[place]] = unpacked(found[place]) or false end
end

local function counter_of(field)
    if loaded[field] == nil then preload({field}) end
    return loaded[field]
end

local function write(field, counter)
    loaded[field], touched[field] = counter, true
end

local function cell_of(moment) return math.floor(moment / CELL_MS) end

-- The minute's counter as of now, or as of its own newest cell where the clock went back.
local function minute_of(field)
    local counter = counter_of(field)
    local cell = cell_of(now)
    if not counter then
        counter = {cell}
        for place = 2, 1 + 2 * CELLS do counter[place] = 0 end
        return counter
    end
    local passed = cell - counter[1]
    if passed <= 0 then return counter end
    local shifted = {cell}
    for place = 0, CELLS - 1 do
        local old = place - passed
        shifted[2 + place] = old >= 0 and counter[2 + old] or 0
        shifted[2 + CELLS + place] = old >= 0 and counter[2 + CELLS + old] or 0
    end
    return shifted
end

-- The period's counter; one of an earlier period begins anew, one of a later period stays (the clock went back).
local function period_of(field, start, ends)
    local counter = counter_of(field)
    if not counter or counter[1] < start then return {start, ends, 0, 0} end
    return counter
end

local function totals(counter, is_minute)
    if not is_minute then return counter[3], counter[4] end
    local used, held = 0, 0
    for place = 2, 1 + CELLS do
        used, held = used + counter[place], held + counter[place + CELLS]
    end
    return used, held
end

-- Adds to used and held of the window that began at `start`, or of the cell; nothing where that window is over.
local function add(field, is_minute, start, ends, used, held)
    if is_minute then
        local counter = minute_of(field)
        local place = counter[1] - start
        if place < 0 then place = 0 end
        if place >= CELLS then return end
        counter[2 + place] = counter[2 + place] + used
        counter[2 + CELLS + place] = counter[2 + CELLS + place] + held
        write(field, counter)
    else
        local counter = period_of(field, start, ends)
        if counter[1] ~= start then return end
        counter[3], counter[4] = counter[3] + used, counter[4] + held
        write(field, counter)
    end
end

-- Milliseconds until a minute's counter has room for what is missing.
local function minute_wait(counter, missing)
    for place = CELLS - 1, 0, -1 do
        missing = missing - counter[2 + place] - counter[2 + CELLS + place]
        if missing <= 0 then return (counter[1] - place + CELLS) * CELL_MS - now end
    end
    return CELLS * CELL_MS
end

-- Holds

local function hold_of(id)
    if new_holds[id] == nil then new_holds[id] = unpacked(redis.call('HGET', holds, id)) or false end
    return new_holds[id]
end

local function keep(id, hold, ends_at)
    hold[3] = ends_at
    new_holds[id] = hold
    redis.call('HSET', holds, id, cmsgpack.pack(hold))
    redis.call('ZADD', expiries, ends_at, id)
end

local function forget(id)
    new_holds[id] = false
    redis.call('HDEL', holds, id)
    redis.call('ZREM', expiries, id)
end

-- Takes what a hold has in the counters out of them.
local function take_back(hold)
    for _, entry in ipairs(hold[5]) do
        add(entry[1], entry[2], entry[3], entry[8], -entry[7], -entry[6])
        entry[6], entry[7] = 0, 0
    end
end

local function purge()
    local due = redis.call('ZRANGEBYSCORE', expiries, '-inf', now, 'LIMIT', 0, PURGED_MAX)
    for _, id in ipairs(due) do
        local hold = hold_of(id)
        if hold and hold[1] == 'o' then
            take_back(hold)
            hold[1] = 'x'
            keep(id, hold, now + UNCONFIRMED_MS)
        else
            if hold and hold[1] == 'c' then take_back(hold) end
            forget(id)
        end
    end
end

-- Answers: {status, now, epoch, operations, granted, then used, held, flag, wait_ms of each limit}

local OK, REFUSED, FORBIDDEN, OVER = 0, 1, 2, 3

local function finish(status, granted, figures)
    if next(touched) or status == 'written' then
        meta[2] = meta[2] + 1
        local pairs_to_set = {'#', cmsgpack.pack(meta)}
        for field in pairs(touched) do
            pairs_to_set[#pairs_to_set + 1] = field
            pairs_to_set[#pairs_to_set + 1] = cmsgpack.pack(loaded[field])
        end
        redis.call('HSET', counters, unpack(pairs_to_set))
    end
    local reply = {status, now, meta[1], meta[2], granted}
    for _, figure in ipairs(figures or {}) do reply[#reply + 1] = figure end
    return reply
end

-- What is wrong with the counters for this caller, or nothing. `known` is {epoch, operations, limits}: an older copy of
-- what it has seen is lost, and one for other limits lacks counters.
local function trouble(known)
    if not meta or meta[1] < known[1] or (meta[1] == known[1] and meta[2] < known[2]) then return 'lost' end
    return meta[4] ~= known[3] and 'other_limits' or nil
end

local function fields_of(limits)
    local fields = {}
    for place, limit in ipairs(limits) do fields[place] = limit[1] end
    return fields
end

-- A limit is {field, is_minute, start, end, meter, value (-1: none), is_hard, fixed, per_output}.
-- Returns what may be granted, nil where it is refused, and the figures.
local function weigh(limits, wanted, least)
    local granted, refused, figures = wanted, false, {}
    for _, limit in ipairs(limits) do
        local is_minute, value, fixed, per_output = limit[2], limit[6], limit[8], limit[9]
        local counter = is_minute and minute_of(limit[1]) or period_of(limit[1], limit[3], limit[4])
        local used, held = totals(counter, is_minute)
        local missing = used + held + fixed + per_output * least - value
        local flag, wait = OK, 0
        if value >= 0 and missing > 0 then
            flag = not limit[7] and OVER or value == 0 and FORBIDDEN or REFUSED
            if flag == REFUSED then
                wait = is_minute and minute_wait(counter, missing) or limit[4] > 0 and limit[4] - now or 0
            end
        end
        if value >= 0 and limit[7] and per_output > 0 then
            granted = math.min(granted, value - used - held - fixed)
        end
        refused = refused or flag == REFUSED or flag == FORBIDDEN
        figures[#figures + 1] = used
        figures[#figures + 1] = held
        figures[#figures + 1] = flag
        figures[#figures + 1] = wait
    end
    return not refused and granted or nil, figures
end

local function is_outside(limits)
    for _, limit in ipairs(limits) do
        if not limit[2] and limit[4] > 0 and (now < limit[3] or now >= limit[4]) then return true end
    end
end

-- Operations

local run = {}

-- {known, id, digest, ttl_ms, wanted, least, is_dry, limits}
function run.reserve(known, id, digest, ttl_ms, wanted, least, is_dry, limits)
    preload(fields_of(limits))
    local wrong = trouble(known)
    if wrong then return {wrong, now} end
    purge()
    local hold = not is_dry and hold_of(id)
    if hold then
        if hold[2] ~= digest then return finish('conflict', 0) end
        return finish('ok', hold[4], hold[6])
    end
    if is_outside(limits) then return finish('clock', 0) end
    local granted, figures = weigh(limits, wanted, least)
    if not granted then return finish('refused', 0, figures) end
    if is_dry then return finish('ok', granted, figures) end
    local entries = {}
    for place, limit in ipairs(limits) do
        local amount = limit[8] + limit[9] * granted
        -- The counter's own newest window, should the clock have gone back.
        local counter = limit[2] and minute_of(limit[1]) or period_of(limit[1], limit[3], limit[4])
        local start = counter[1]
        add(limit[1], limit[2], start, limit[4], 0, amount)
        entries[place] = {limit[1], limit[2], start, limit[5], limit[9], amount, 0, limit[4]}
    end
    keep(id, {'o', digest, 0, granted, entries, figures}, now + ttl_ms)
    return finish('written', granted, figures)
end

-- {known, id, ttl_ms, more, limits}: more output, and a sign of life
function run.extend(known, id, ttl_ms, more, limits)
    preload(fields_of(limits))
    local wrong = trouble(known)
    if wrong then return {wrong, now} end
    purge()
    local hold = hold_of(id)
    if not hold or hold[1] ~= 'o' then return finish(hold and 'closed' or 'unknown', 0) end
    local granted, figures = weigh(limits, more, more > 0 and 1 or 0)
    if not granted then return finish('refused', 0, figures) end
    for _, entry in ipairs(hold[5]) do
        if entry[5] > 0 and granted > 0 then
            add(entry[1], entry[2], entry[3], entry[8], 0, granted)
            entry[6] = entry[6] + granted
        end
    end
    hold[4] = hold[4] + granted
    keep(id, hold, now + ttl_ms)
    return finish('written', granted, figures)
end

-- {known, id, amounts by meter, limits}: what was really used. The limits are for a hold that is not known.
function run.commit(known, id, amounts, limits)
    preload(fields_of(limits))
    local wrong = trouble(known)
    if wrong then return {wrong, now} end
    purge()
    local hold = hold_of(id)
    if hold and hold[1] ~= 'o' and hold[1] ~= 'x' then return finish(hold[1] == 'r' and 'closed' or 'ok', hold[4]) end
    local status = not hold and 'unknown' or hold[1] == 'x' and 'late' or 'written'
    if not hold then
        local entries = {}
        for place, limit in ipairs(limits) do
            local start = limit[2] and cell_of(now) or limit[3]
            entries[place] = {limit[1], limit[2], start, limit[5], limit[9], 0, 0, limit[4]}
        end
        hold = {'o', '', 0, 0, entries, {}}
    end
    local figures = {}
    for _, entry in ipairs(hold[5]) do
        local amount = amounts[entry[4]] or entry[6]  -- what isn't known counts as it was held
        add(entry[1], entry[2], entry[3], entry[8], amount, -entry[6])
        figures[#figures + 1] = math.max(amount - entry[6], 0)
        entry[6], entry[7] = 0, amount
    end
    hold[1] = 'c'
    keep(id, hold, now + UNCONFIRMED_MS)
    local reply = finish('written', hold[4], figures)
    reply[1] = status
    return reply
end

-- {known, id}
function run.release(known, id)
    preload({})
    local wrong = trouble(known)
    if wrong then return {wrong, now} end
    purge()
    local hold = hold_of(id)
    if not hold or hold[1] ~= 'o' then return finish(hold and (hold[1] == 'r' and 'ok' or 'closed') or 'unknown', 0) end
    take_back(hold)
    hold[1] = 'r'
    keep(id, hold, now + KEPT_MS)
    return finish('written', 0)
end

-- {mark, rows}: entries of the ledger; a row is {mark, reservation or '', places}, a place {field, is_minute,
-- start or moment, end, amount}
function run.settle(mark, rows)
    preload({})
    if not meta then return {'lost', now} end
    purge()
    for _, row in ipairs(rows) do
        if row[1] > meta[3] then
            local hold = row[2] ~= '' and hold_of(row[2])
            if hold and hold[1] ~= 's' then
                take_back(hold)
                hold[1], hold[5] = 's', {}
                keep(row[2], hold, now + KEPT_MS)
            end
            for _, place in ipairs(row[3]) do
                add(place[1], place[2], place[2] and cell_of(place[3]) or place[3], place[4], place[5], 0)
            end
        end
    end
    meta[3] = math.max(meta[3], mark)
    return finish('written', 0)
end

-- {known}: whether the counters are there, for the builder that has waited for another one
function run.look(known)
    preload({})
    local wrong = trouble(known)
    if wrong then return {wrong, now} end
    return finish('ok', 0)
end

-- {epoch, mark, limits, is_first, is_last, is_reset, places}: the counters as the ledger has them, in pieces; until the
-- last one they are lost to everybody. is_reset: holds are forgotten; otherwise what they have in the counters is added
-- again.
function run.build(epoch, mark, built_for, is_first, is_last, is_reset, places)
    if is_first then
        redis.call('DEL', counters)
        if is_reset then redis.call('DEL', holds, expiries) end
    end
    meta = {epoch, 0, mark, built_for}
    for _, place in ipairs(places) do
        add(place[1], place[2], place[2] and cell_of(place[3]) or place[3], place[4], place[5], 0)
    end
    if is_last and not is_reset then
        for _, id in ipairs(redis.call('HKEYS', holds)) do
            for _, entry in ipairs(hold_of(id)[5]) do
                add(entry[1], entry[2], entry[3], entry[8], entry[7], entry[6])
            end
        end
    end
    if is_last then return finish('written', 0) end
    for field in pairs(touched) do redis.call('HSET', counters, field, cmsgpack.pack(loaded[field])) end
    return {'written', now}
end

return run[operation](unpack(given))
