-- Counters and holds of one administration: everything that reads and writes them, in one atomic call.
--
-- KEYS: counters (hash), holds (hash), expiries (sorted set); one slot, by the hash tag of the administration.
-- ARGV: operation, its arguments (MessagePack).
--
-- A counter is {start, end, used, held} for a period (end 0: it never ends), or {cell, used x 7, held x 7} for a minute:
-- cells of 10 s, newest first. Seven of them cover any 60 s whole, so that no 60 s ever exceed a limit.
-- A hold is {state, digest, granted, entries, reply, about, opened, total}: about says whose request it is, for people;
-- total is the output held in all, once it was extended. An entry is {field, is_minute, start or cell, end, meter,
-- per_output, amount}. States: o open (its amounts are held), c committed until its event is in the ledger (its amounts
-- are used), s settled, r released, x expired (nothing of it is in the counters; the amounts say what was held).
-- The counters' field `#` is {epoch, operations, mark, limits, pieces, sweep, doubt}: which building of the counters this
-- is, how often it was written, how far the ledger is in it, for which limits it was built (-1: it is being built), of how
-- many pieces, where the sweep goes on, and until when requests may be under way that lost their holds (0: none is).

local counters, holds, expiries = KEYS[1], KEYS[2], KEYS[3]
local operation, given = ARGV[1], cmsgpack.unpack(ARGV[2])

local min, max = math.min, math.max
local CELL_MS, CELLS = 10000, 7
local PURGED_MAX, SWEPT = 16, 20
local ROUNDS_MAX = 20            -- purges more, where a limit may be full of holds that are over
local TOGETHER = 1000            -- fields in one command: Lua's stack has room for 8,000
local BUILDING = -1
local KEPT_MS = 3600000          -- a state that absorbs is remembered for an hour
local DOUBT_MS = 3600000         -- no hold lives longer without a sign of life
local UNCONFIRMED_MS = 86400000  -- a commit without an event is taken back after a day: the ledger is the truth
local OVER_MS = 86400000         -- a period's counter is kept for a day more: no clock is that wrong
local SHOWN_MAX = 2 ^ 53 - 1     -- beyond it numbers are rounded; limits end there

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local meta            -- the field `#`; false where there is none
local loaded = {}     -- field to counter
local touched = {}    -- fields to be written
local new_holds = {}  -- id to hold, or false where it is gone

-- Counters

local function unpacked(text) return text and cmsgpack.unpack(text) end

local function preload(fields)
    local missing = {meta == nil and '#' or nil}
    for _, field in ipairs(fields) do
        if loaded[field] == nil then missing[#missing + 1] = field end
    end
    for first = 1, #missing, TOGETHER do
        local last = min(first + TOGETHER - 1, #missing)
        local found = redis.call('HMGET', counters, unpack(missing, first, last))
        for place = first, last do loaded[missing[place]] = unpacked(found[place - first + 1]) or false end
    end
    if meta == nil then meta = loaded['#'] end
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
        -- What was swept isn't made anew.
        if not counter_of(field) and ends > 0 and ends + OVER_MS <= now then return end
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
    new_holds[id] = hold
    redis.call('HSET', holds, id, cmsgpack.pack(hold))
    redis.call('ZADD', expiries, ends_at, id)
end

-- The state of a packed hold, without the rest of it.
local function state_of(packed) return packed:sub(3, 3) end

local function forget(id)
    new_holds[id] = false
    redis.call('HDEL', holds, id)
    redis.call('ZREM', expiries, id)
end

local function fields_of(limits_or_entries)
    local fields = {}
    for place, one in ipairs(limits_or_entries) do fields[place] = one[1] end
    return fields
end

-- Puts what a hold has in the counters into them (sign 1), or takes it out (-1).
local function count(hold, sign)
    local used, held = hold[1] == 'c' and sign or 0, hold[1] == 'o' and sign or 0
    if used == held then return end
    preload(fields_of(hold[4]))
    for _, entry in ipairs(hold[4]) do
        if entry[7] ~= 0 then add(entry[1], entry[2], entry[3], entry[4], used * entry[7], held * entry[7]) end
    end
end

-- Ends what is over, the oldest first; returns whether there may be more.
local function purge()
    local due = redis.call('ZRANGEBYSCORE', expiries, '-inf', now, 'LIMIT', 0, PURGED_MAX)
    for _, id in ipairs(due) do
        local hold = hold_of(id)
        if hold then count(hold, -1) end
        if hold and hold[1] == 'o' then
            hold[1] = 'x'
            keep(id, hold, now + UNCONFIRMED_MS)
        else
            forget(id)
        end
    end
    return #due == PURGED_MAX
end

local function is_over(counter)
    if #counter == 4 then
        return counter[2] > 0 and counter[2] + OVER_MS <= now or counter[3] == 0 and counter[4] == 0
    end
    return counter[1] + CELLS <= cell_of(now)
end

-- Forgets some counters of people who didn't come back: those of windows that are over, and those that count nothing.
local function sweep()
    local found = redis.call('HSCAN', counters, meta[6], 'COUNT', SWEPT)
    meta[6] = found[1]
    for place = 1, #found[2], 2 do
        local field = found[2][place]
        if field ~= '#' and not touched[field] and is_over(cmsgpack.unpack(found[2][place + 1])) then
            redis.call('HDEL', counters, field)
        end
    end
end

-- Answers: {status, now, epoch, operations, granted, figures: packed; used, held, flag, wait_ms of each limit}

local OK, REFUSED, FORBIDDEN, OVER = 0, 1, 2, 3

local function write_counters()
    local written = {'#', cmsgpack.pack(meta)}
    for field in pairs(touched) do
        written[#written + 1] = field
        written[#written + 1] = cmsgpack.pack(loaded[field])
        if #written >= TOGETHER then
            redis.call('HSET', counters, unpack(written))
            written = {'#', cmsgpack.pack(meta)}
        end
    end
    redis.call('HSET', counters, unpack(written))
end

local function finish(status, granted, figures)
    if next(touched) or status == 'written' then
        meta[2] = meta[2] + 1
        write_counters()
    end
    local reply = {status, now, meta[1], meta[2], granted}
    if figures then
        for place, figure in ipairs(figures) do figures[place] = min(figure, SHOWN_MAX) end
        reply[6] = cmsgpack.pack(figures)  -- one value: a list of sixteen takes the server 4 µs more
    end
    return reply
end

-- What is wrong with the counters for this caller, or nothing. `known` is {epoch, operations, limits}: an older copy of
-- what it has seen is lost, and one for other limits lacks counters.
local function trouble(known)
    if not meta or meta[1] < known[1] or (meta[1] == known[1] and meta[2] < known[2]) then return 'lost' end
    return meta[4] ~= known[3] and 'other_limits' or nil
end

-- How much output fits into some room; a quotient may be rounded up to the next whole number.
local function fitting(room, per_output)
    if per_output == 1 then return room end
    local output = math.floor(room / per_output)
    return output * per_output > room and output - 1 or output
end

-- A limit is {field, is_minute, start, end, meter, value (-1: none), is_hard, per_output}: the last is what a token of
-- output needs of it; `fixed_of` is what the request needs of each limit whatever its output is.
-- Returns what may be granted, nil where it is refused, and the figures.
local function weigh(limits, fixed_of, wanted, least)
    local granted, refused, figures = wanted, false, {}
    for place, limit in ipairs(limits) do
        local is_minute, value, fixed, per_output = limit[2], limit[6], fixed_of[place] or 0, limit[8]
        local counter = is_minute and minute_of(limit[1]) or period_of(limit[1], limit[3], limit[4])
        local used, held = totals(counter, is_minute)
        local missing = used + held + fixed + per_output * least - value
        local needs_output = per_output > 0 and wanted > 0
        local flag, wait = OK, 0
        -- Who needs nothing of it isn't stopped by it.
        if value >= 0 and missing > 0 and (fixed > 0 or needs_output) then
            flag = not limit[7] and OVER or value == 0 and FORBIDDEN or REFUSED
            if flag == REFUSED then
                wait = is_minute and minute_wait(counter, missing) or limit[4] > 0 and limit[4] - now or 0
            end
        end
        if value >= 0 and limit[7] and needs_output then
            granted = min(granted, fitting(value - used - held - fixed, per_output))
        end
        refused = refused or flag == REFUSED or flag == FORBIDDEN
        local at = 4 * place
        figures[at - 3], figures[at - 2], figures[at - 1], figures[at] = used, held, flag, wait
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

-- {known, id, digest, ttl_ms, wanted, least, is_dry, is_closed, limits, fixed, about}. is_closed: nothing is held while
-- the counters are in doubt.
function run.reserve(known, id, digest, ttl_ms, wanted, least, is_dry, is_closed, limits, fixed, about)
    preload(fields_of(limits))
    local wrong = trouble(known)
    if wrong then return {wrong, now} end
    local may_be_full = purge()  -- of holds that are over
    if is_closed and (meta[7] or 0) > now then
        if is_outside(limits) then return finish('clock', 0) end
        local _, figures = weigh(limits, fixed, wanted, least)
        return finish('doubtful', 0, figures)
    end
    local hold = not is_dry and hold_of(id)
    if hold and hold[2] ~= digest then return finish('conflict', 0) end
    -- The same answer again; its figures are those of now where the limits are others.
    if hold and #hold[5] == 4 * #limits then return finish('ok', hold[3], hold[5]) end
    if is_outside(limits) then return finish('clock', 0) end
    local granted, figures = weigh(limits, fixed, wanted, least)
    if hold then return finish('ok', hold[3], figures) end
    for _ = 1, ROUNDS_MAX do
        if granted or not may_be_full then break end
        may_be_full = purge()
        granted, figures = weigh(limits, fixed, wanted, least)
    end
    if not granted then return finish('refused', 0, figures) end
    if is_dry then return finish('ok', granted, figures) end
    local entries = {}
    for place, limit in ipairs(limits) do
        local field, is_minute, amount = limit[1], limit[2], min(fixed[place] + limit[8] * granted, SHOWN_MAX)
        -- The counter's own newest window, should the clock have gone back.
        local counter = is_minute and minute_of(field) or period_of(field, limit[3], limit[4])
        local newest = is_minute and 2 + CELLS or 4
        counter[newest] = counter[newest] + amount
        write(field, counter)
        entries[place] = {field, is_minute, counter[1], is_minute and 0 or counter[2], limit[5], limit[8], amount}
    end
    keep(id, {'o', digest, granted, entries, figures, about, now}, now + ttl_ms)
    return finish('written', granted, figures)
end

-- {known, id, ttl_ms, total, limits}: a sign of life, and output up to so much in all: who says it twice holds it once.
-- What is granted is the output held in all.
function run.extend(known, id, ttl_ms, total, limits)
    preload(fields_of(limits))
    local wrong = trouble(known)
    if wrong then return {wrong, now} end
    purge()
    local hold = hold_of(id)
    if not hold or hold[1] ~= 'o' then return finish(hold and 'closed' or 'unknown', 0) end
    if is_outside(limits) then return finish('clock', 0) end
    local so_far = hold[8] or hold[3]
    local wanted = max(total - so_far, 0)
    local more, figures = weigh(limits, {}, wanted, min(wanted, 1))  -- all but output is held already
    if not more then return finish('refused', so_far, figures) end
    for _, entry in ipairs(hold[4]) do
        if entry[6] > 0 and more > 0 then
            local amount = min(entry[7] + entry[6] * more, SHOWN_MAX)
            add(entry[1], entry[2], entry[3], entry[4], 0, amount - entry[7])
            entry[7] = amount
        end
    end
    hold[8] = so_far + more
    keep(id, hold, now + ttl_ms)
    return finish('written', hold[8], figures)
end

-- {known, id, amounts by meter, limits}: what was really used. The limits are for a hold that is not known.
function run.commit(known, id, amounts, limits)
    preload(fields_of(limits))
    local wrong = trouble(known)
    if wrong then return {wrong, now} end
    purge()
    local hold = hold_of(id)
    if hold and hold[1] ~= 'o' and hold[1] ~= 'x' then return finish(hold[1] == 'r' and 'closed' or 'ok', hold[3]) end
    local status = not hold and 'unknown' or hold[1] == 'x' and 'late' or 'written'
    if not hold then
        if is_outside(limits) then return finish('clock', 0) end
        hold = {'x', '', 0, {}, {}}
        for place, limit in ipairs(limits) do
            local start = limit[2] and cell_of(now) or limit[3]
            hold[4][place] = {limit[1], limit[2], start, limit[4], limit[5], limit[8], 0}
        end
    end
    preload(fields_of(hold[4]))
    local overdrafts = {}
    for _, entry in ipairs(hold[4]) do
        local amount = amounts[entry[5]] or entry[7]  -- what isn't known counts as it was held
        add(entry[1], entry[2], entry[3], entry[4], amount, hold[1] == 'o' and -entry[7] or 0)
        overdrafts[#overdrafts + 1] = max(amount - entry[7], 0)
        entry[7] = amount
    end
    hold[1] = 'c'
    keep(id, hold, now + UNCONFIRMED_MS)
    local reply = finish('written', hold[3], overdrafts)
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
    count(hold, -1)
    keep(id, {'r', hold[2], hold[3], {}, hold[5]}, now + KEPT_MS)
    return finish('written', 0)
end

-- What is asked for every request ends here: defining what follows would take longer than to call it.
if run[operation] then return run[operation](unpack(given)) end

-- Rank of the first hold after a place in the order of their ends; of those that were there when the place was told,
-- none is left out.
local function rank_after(ends_at, id)
    if tonumber(redis.call('ZSCORE', expiries, id) or -1) == ends_at then
        return redis.call('ZRANK', expiries, id) + 1
    end
    return redis.call('ZCOUNT', expiries, '-inf', '(' .. ends_at)
end

-- {known, ends_at, id, some}: looks at some holds after a place in the order of their ends. Granted 1: there are more.
-- What follows is {ends_at, id, hold} of each that is open, and {ends_at, id} of the last one looked at.
function run.holds(known, ends_at, id, some)
    preload({})
    local wrong = trouble(known)
    if wrong then return {wrong, now} end
    local first = max(rank_after(ends_at, id), redis.call('ZCOUNT', expiries, '-inf', now))
    local found = redis.call('ZRANGE', expiries, first, first + some - 1, 'WITHSCORES')
    local reply = finish('ok', #found == 2 * some and 1 or 0)
    for place = 1, #found, 2 do
        local packed = redis.call('HGET', holds, found[place])
        if packed and state_of(packed) == 'o' then
            for _, value in ipairs({found[place + 1], found[place], packed}) do reply[#reply + 1] = value end
        end
    end
    reply[#reply + 1] = found[#found] or ''
    reply[#reply + 1] = found[#found - 1] or ''
    return reply
end

-- An entry of the ledger takes the place of its hold. A commit that is still to come must count nothing beside it.
local function settle_row(reservation, moment, places)
    local cells = {}
    local hold = reservation ~= '' and hold_of(reservation)
    if hold then
        for _, entry in ipairs(hold[4]) do cells[entry[1]] = entry[2] and entry[3] or nil end
        count(hold, -1)
    end
    if hold or reservation ~= '' and now - moment < UNCONFIRMED_MS then
        keep(reservation, {'s', hold and hold[2] or '', hold and hold[3] or 0, {}, hold and hold[5] or {}}, now + KEPT_MS)
    end
    preload(fields_of(places))
    for _, place in ipairs(places) do
        local field, is_minute = place[1], place[2]
        -- A minute is one of this clock, which admitted it, not of the gateway's.
        local start = is_minute and (cells[field] or cell_of(place[3])) or place[3]
        add(field, is_minute, start, place[4], place[5], 0)
    end
end

-- {from, mark, rows, watched}: entries of the ledger up to a mark, for counters that have all up to `from`. A row is
-- {mark, reservation or '', moment, places}, a place {field, is_minute, start or moment, end, amount}. What follows is
-- {start, used} of each counter that is watched.
function run.settle(from, mark, rows, watched)
    preload({})
    if meta and meta[3] < from then
        redis.call('HDEL', counters, '#')  -- an older copy: what lies between would never be counted
        meta = false
    end
    if not meta then return {'lost', now} end
    purge()
    for _, row in ipairs(rows) do
        if row[1] > meta[3] then settle_row(row[2], row[3], row[4]) end
    end
    meta[3] = max(meta[3], mark)
    sweep()
    preload(watched)
    local figures = {}
    for _, field in ipairs(watched) do
        local counter = loaded[field] or {0, 0, 0}
        figures[#figures + 1] = counter[1]
        figures[#figures + 1] = counter[3]
    end
    return finish('written', 0, figures)
end

-- {}: which building these counters are: its mark and its limits
function run.look()
    preload({})
    if not meta then return {'lost', now} end
    return finish('ok', 0, {meta[3], meta[4]})
end

-- {}: everything at one moment. What follows is {mark, limits}, {field, counter, …}, and the holds that count.
function run.all()
    preload({})
    if not meta then return {'lost', now} end
    local counting = {}
    for _, packed in ipairs(redis.call('HVALS', holds)) do
        local state = state_of(packed)
        if state == 'o' or state == 'c' then counting[#counting + 1] = packed end
    end
    local reply = finish('ok', 0)
    reply[6], reply[7], reply[8] = {meta[3], meta[4]}, redis.call('HGETALL', counters), counting
    return reply
end

-- Whether a piece of a building is the next one, or was sent twice ('done'), or is of a building that another has
-- outrun ('lost').
local function turn_of(epoch, piece)
    if not meta or meta[1] < epoch then return piece == 0 and 'next' or 'lost' end
    if meta[1] > epoch or meta[5] < piece then return 'lost' end
    return meta[5] == piece and 'next' or 'done'
end

-- {epoch, mark, is_reset, is_loss}: a building begins. Its counters are for nobody's limits until it is finished.
-- is_reset: the holds aren't believed either. is_loss: there were some.
function run.begin(epoch, mark, is_reset, is_loss)
    preload({})
    local turn = turn_of(epoch, 0)
    if turn ~= 'next' then return turn == 'lost' and {'lost', now} or finish('ok', 0) end
    local doubt = is_loss and now + DOUBT_MS or not is_reset and meta and meta[7] or 0
    redis.call('UNLINK', counters)
    if is_reset then redis.call('UNLINK', holds, expiries) end
    meta = {epoch, 0, mark, BUILDING, 1, '0', doubt}
    return finish('written', 0)
end

-- {epoch, piece, places, reservations}: some counters as the ledger has them, and requests of which it has the event
function run.build(epoch, piece, places, reservations)
    preload({})
    local turn = turn_of(epoch, piece)
    if turn ~= 'next' then return turn == 'lost' and {'lost', now} or finish('ok', 0) end
    settle_row('', now, places)
    for _, id in ipairs(reservations) do keep(id, {'s', '', 0, {}, {}}, now + KEPT_MS) end
    meta[5] = piece + 1
    return finish('written', 0)
end

-- {epoch, piece, built_for, first, some}: what some holds have is counted again; after the last the counters are there.
-- Nobody changes holds meanwhile, so that their order stays. Granted 1: that was the last.
function run.adopt(epoch, piece, built_for, first, some)
    preload({})
    local turn = turn_of(epoch, piece)
    if turn == 'lost' then return {'lost', now} end
    if turn == 'next' then
        local ids = redis.call('ZRANGE', expiries, first, first + some - 1)
        for _, id in ipairs(ids) do
            local hold = hold_of(id)
            if hold then count(hold, 1) end
        end
        if #ids < some then meta[4] = built_for end
        meta[5] = piece + 1
    end
    return finish(turn == 'next' and 'written' or 'ok', meta[4] == BUILDING and 0 or 1)
end

return run[operation](unpack(given))
