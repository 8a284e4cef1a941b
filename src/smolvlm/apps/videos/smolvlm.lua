-- smolvlm: search inside videos. Written by `smolvlm vlc install`; needs `smolvlm vlc serve` to run.
-- Lua 5.1 and 5.2. VLC 3; of VLC 4 the names are used where they are there.

local url = "@URL@"
local dialog, query, list, line
local hits = {}

function descriptor()
  return {
    title = "smolvlm: search inside videos",
    version = "1",
    author = "smolvlm",
    shortdesc = "smolvlm: search inside videos",
    description = "Type what happens; a click jumps there. Everything stays on this machine.",
    capabilities = {},
  }
end

function activate()
  dialog = vlc.dialog("smolvlm")
  query = dialog:add_text_input("", 1, 1, 3, 1)
  dialog:add_button("Search", search, 4, 1, 1, 1)
  list = dialog:add_list(1, 2, 4, 8)
  dialog:add_button("Jump", jump, 1, 10, 1, 1)
  dialog:add_button("Queue all", queue_all, 2, 10, 1, 1)
  line = dialog:add_label("", 1, 11, 4, 1)
  dialog:show()
end

function deactivate()
  if dialog then dialog:delete() end
  dialog = nil
end

function close()
  vlc.deactivate()
end

local function escaped(text)
  return (text:gsub("[^%w%-%._~]", function(c) return string.format("%%%02X", string.byte(c)) end))
end

local function item()
  if vlc.input and vlc.input.item then return vlc.input.item() end
  if vlc.player and vlc.player.item then return vlc.player.item() end -- VLC 4
  return nil
end

local function say(text)
  line:set_text(text)
  dialog:update()
end

function search()
  local text = query:get_text() or ""
  local open = item()
  local address = url .. "search.tsv?q=" .. escaped(text)
  if open then address = address .. "&open=" .. escaped(open:uri()) end
  say("searching ...")
  local stream = vlc.stream(address)
  hits = {}
  list:clear()
  if not stream then
    say("no answer: run `smolvlm vlc serve` in a terminal")
    return
  end
  local answer = ""
  local row = stream:readline()
  while row do
    local from, to, uri, where, title = row:match("^([%d%.]+)\t([%d%.]+)\t([^\t]+)\t(%a+)\t(.*)$")
    if from then
      hits[#hits + 1] = { from = tonumber(from), to = tonumber(to), uri = uri, here = where == "here", title = title }
      local seconds = math.floor(tonumber(from))
      list:add_value(string.format("%d:%02d  %s", math.floor(seconds / 60), seconds % 60, title), #hits)
    elseif row:sub(1, 1) == "#" then
      answer = row:sub(3)
    end
    row = stream:readline()
  end
  if #hits > 0 then answer = #hits .. " found" elseif answer == "" then answer = "no answer: is the query empty?" end
  say(answer)
end

local function entry(hit)
  return {
    path = hit.uri,
    name = hit.title,
    options = { string.format("start-time=%.3f", hit.from), string.format("stop-time=%.3f", hit.to) },
  }
end

function jump() -- to the chosen line, or the first
  local hit = hits[next(list:get_selection() or {}) or 1]
  if not hit then
    say("search first")
  elseif not hit.here then
    vlc.playlist.add({ entry(hit) })
  elseif vlc.player and vlc.player.seek_by_time_absolute then -- VLC 4
    vlc.player.seek_by_time_absolute(math.floor(hit.from * 1000000))
  else
    local input = vlc.object.input()
    if input then
      vlc.var.set(input, "time", math.floor(hit.from * 1000000))
    else -- stopped: play it from there
      vlc.playlist.add({ entry(hit) })
    end
  end
end

function queue_all()
  local entries = {}
  for _, hit in ipairs(hits) do entries[#entries + 1] = entry(hit) end
  if #entries > 0 then vlc.playlist.enqueue(entries) end
end
