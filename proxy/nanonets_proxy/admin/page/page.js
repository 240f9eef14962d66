"use strict";
// The page is filled from the status document (docs/reference/status.md) with text nodes only: callers choose names.
const OUTCOMES = [["served", "served"], ["client_errors", "4xx"], ["throttled", "429"], ["server_errors", "5xx"],
  ["gone", "caller gone"]];
const WAITS = [["mean_wait_s", "in the queue"], ["mean_upstream_s", "upstream"]];
const CAUSES = {proxy: "the proxy", key: "the API key", limit: "the rate limit of Nanonets",
  upstream: "Nanonets, or the way to it"};
const BAD = ["no_key", "key_rejected", "key_forbidden", "proxy_failing", "upstream_failing", "proxy_slow", "proxy_full",
  "upstream_silent"];
const STALE_MS = 5000, RETRY_MS = 2000;
const SVG = "http://www.w3.org/2000/svg";
const main = document.querySelector("main"), spoken = document.querySelector(".spoken");
const link = document.querySelector("[data-f=link]");
const sections = new Map();
let version = "", source = null, timer = 0, lastAt = null, spokenKey = "";

const make = (tag, text, name) => {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
};
const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };
const duration = seconds => {
  const s = Math.ceil(seconds);
  for (const [size, unit, smaller, name] of [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]])
    if (s >= size) {
      const left = Math.floor(s % size / smaller);
      return Math.floor(s / size) + " " + unit + (left ? " " + left + " " + name : "");
    }
  return s + " s";
};
const number = value => value.toLocaleString("en", {maximumFractionDigits: value < 10 ? 2 : value < 100 ? 1 : 0});
const seconds = value => value < 60 ? number(value) + " s" : duration(value);
const bytes = value => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < 4) { value /= 1024; unit++; }
  return number(value) + " " + units[unit];
};
const sum = values => values.reduce((total, value) => total + value, 0);

// Fills a table in place, so that focus, selection and a screen reader's position stay.
const fill = (section, name, rows, numeric) => {
  const table = section.querySelector(`[data-t=${name}]`), body = table.tBodies[0];
  const none = section.querySelector(`[data-none=${name}]`);
  table.parentNode.classList.toggle("is-empty", !rows.length); // with its place in the order of Tab
  if (none) none.classList.toggle("is-empty", rows.length > 0);
  fillRows(body, rows, numeric);
};
const fillRows = (body, rows, numeric) => {
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((cells, at) => {
    const row = body.rows[at] || body.insertRow();
    cells.forEach((text, index) => {
      const cell = row.cells[index] || row.appendChild(make("td", "", index >= numeric ? "n" : ""));
      put(cell, text);
    });
  });
};
const list = (node, items, key) => {
  const text = JSON.stringify(key);
  if (node.dataset.key !== text) { node.dataset.key = text; node.replaceChildren(...items()); }
};
const pair = (node, value, limit) => {
  put(node.firstChild || node.appendChild(document.createTextNode("")), value);
  put(node.children[0] || node.appendChild(make("small")), limit);
};

const rect = (x, y, width, height, name, title) => {
  const made = document.createElementNS(SVG, "rect");
  for (const [key, value] of Object.entries({x, y, width, height, class: name, "aria-hidden": true})) made.setAttribute(key, value);
  if (title) made.appendChild(document.createElementNS(SVG, "title")).textContent = title;
  return made;
};
const minuteOf = (at, count, end) => new Date(end - (count - 1 - at) * 60000).toTimeString().slice(0, 5);
// Draws bars, stacked or side by side. Returns the largest value.
const chart = (svg, series, end, stacked, show) => {
  const count = series[0].values.length;
  const at = index => series.map(each => each.values[index]);
  const largest = Math.max(0, ...Array.from({length: count}, (_, index) => stacked ? sum(at(index)) : Math.max(...at(index))));
  const key = JSON.stringify(series.map(each => each.values)) + minuteOf(count - 1, count, end);
  if (svg.dataset.key === key) return largest;
  svg.dataset.key = key;
  const bars = [], width = 600 / count, part = stacked ? width - 1.5 : (width - 1.5) / series.length;
  for (let index = 0; index < count; index++) {
    let top = 140;
    series.forEach((each, place) => {
      const value = each.values[index];
      if (!value) return;
      const height = Math.max(1, 136 * value / largest);
      top = stacked ? top - height : 140 - height;
      bars.push(rect(index * width + (stacked ? 0 : place * part), top, part, height, each.name));
    });
    const facts = series.filter(each => each.values[index]).map(each => show(each.values[index]) + " " + each.label);
    bars.push(rect(index * width, 0, width, 140, "hit", minuteOf(index, count, end) + ": " + (facts.join(", ") || "none")));
  }
  svg.replaceChildren(...bars);
  return largest;
};
const charts = (section, field, requests, end) => {
  const hour = OUTCOMES.map(([name, label]) => ({name, label, values: requests[name]}));
  if (!hour[0].values.length) return;
  put(field("requests_max"), number(chart(field("requests"), hour, end, true, number)));
  const totals = hour.map(each => [each, sum(each.values)]);
  const text = totals.map(([each, total]) => number(total) + " " + each.label);
  field("requests").setAttribute("aria-label", "Requests of the last hour: " + text.join(", "));
  list(field("legend"), () => totals.map(([each, total]) => {
    const item = make("li", undefined, each.name), label = item.appendChild(make("span"));
    label.append(make("b", number(total)), " " + each.label);
    label.dataset.total = total;
    return item;
  }), text);
  const waits = WAITS.map(([name, label]) => ({name, label, values: requests[name]}));
  const largest = chart(field("waits"), waits, end, false, seconds);
  put(field("waits_max"), seconds(largest));
  const peaks = waits.map(each => [each, Math.max(...each.values)]);
  const peakText = peaks.map(([each, peak]) => "at most " + seconds(peak) + " " + each.label);
  field("waits").setAttribute("aria-label", "Mean times of the last hour, by minute: " + peakText.join(", "));
  list(field("waits_legend"), () => peaks.map(([each, peak]) => {
    const item = make("li", undefined, each.name);
    item.appendChild(make("span", each.label + ", at most " + seconds(peak)));
    return item;
  }), peakText);
  const details = field("minutes");
  if (!details.open) return;
  const table = details.querySelector("table"), head = table.tHead.rows[0], columns = [...hour, ...waits];
  if (head.cells.length === 1)
    for (const each of columns) { const cell = make("th", each.label, "n"); cell.scope = "col"; head.append(cell); }
  const count = hour[0].values.length;
  fillRows(table.tBodies[0], Array.from({length: count}, (_, index) => {
    const place = count - 1 - index;
    return [minuteOf(place, count, end), ...hour.map(each => number(each.values[place])),
      ...waits.map(each => seconds(each.values[place]))];
  }), 1);
};

const limitText = scope => {
  const parts = [];
  if (scope.count !== null) parts.push(number(scope.count) + " in " + seconds(scope.period_s));
  if (scope.concurrency !== null) parts.push(number(scope.concurrency) + " in flight");
  if (scope.reserve > 0) parts.push(number(scope.reserve) + " of them used elsewhere");
  return parts.join(", ") || "unknown";
};
// A browser would break a line after the first hyphen of an option.
const withOptions = text => text.split(/(--[\w-]+)/).map((part, at) => at % 2 ? make("span", part, "whole") : part);
const problem = each => {
  const item = make("li"), facts = make("small");
  const happened = [each.sentence, each.reason].filter(Boolean).join(" ");
  item.append(make("code", each.kind), (each.what && " (" + each.what + ")") + (happened && ": " + happened),
    make("p"), facts);
  item.querySelector("p").append(...withOptions((each.is_alert ? "To do: " : "") + each.advice));
  facts.textContent = each.times + (each.times === 1 ? " time" : " times") + ", last " + duration(each.age_s) + " ago" +
    (each.caller ? ", caller " + each.caller : "") + (each.request_id ? ", request " + each.request_id : "");
  return item;
};
const more = (shown, total, what) => shown && total > shown ? `and ${number(total - shown)} more ${total - shown === 1 ? what : what + "s"}` : "";

const show = (environment, end) => {
  let section = sections.get(environment.name);
  if (!section) {
    section = document.getElementById("environment").content.cloneNode(true).firstElementChild;
    sections.set(environment.name, section);
    main.append(section);
  }
  const field = name => section.querySelector(`[data-f=${name}]`);
  const {gate, state, keys} = environment;
  put(field("name"), environment.name && "Environment " + environment.name);
  put(field("sentence"), state.sentence);
  put(field("cause"), state.cause ? "Look at: " + CAUSES[state.cause] : "");
  section.querySelector(".state").dataset.level = BAD.includes(state.code) ? "bad" : state.cause ? "wait" : "good";
  section.querySelector(".state").dataset.code = state.code;
  // While nobody waits, the sentence is about the scope that opens last.
  const closed = ["quota_used_up", "limit_closed"].includes(state.code) ? Math.max(0, ...gate.scopes.map(scope => scope.opens_in_s)) : 0;
  const granter = ["follows", "joins"].includes(gate.fleet?.role) ? "from the leader" : "at the next response";
  put(field("next"), gate.next_permit_in_s !== null ? duration(gate.next_permit_in_s) : gate.waiting ? granter : closed ? duration(closed) : state.code === "no_key" ? "with a new key" : "at once");
  pair(field("waiting"), number(gate.waiting), ` from ${number(gate.waiting_callers)} ${gate.waiting_callers === 1 ? "caller" : "callers"}`);
  pair(field("in_flight"), number(gate.in_flight), " of " + number(gate.max_in_flight));
  put(field("rate"), number(environment.requests.per_second));
  field("fleet").parentNode.hidden = !gate.fleet;
  if (gate.fleet) pair(field("fleet"), gate.fleet.role, `, ${number(gate.fleet.replicas)} ${gate.fleet.replicas === 1 ? "replica" : "replicas"}`);
  const {jobs} = environment;
  field("jobs").parentNode.hidden = !jobs;
  if (jobs) pair(field("jobs"), number(jobs.queued.used), ` of ${number(jobs.queued.limit)}, ${number(jobs.sending)} sending, ${number(jobs.unknown)} unknown`);
  const used = (name, usage, text) => pair(field(name), text(usage.used), " of " + text(usage.limit));
  used("connections", environment.caller_connections, number);
  used("memory", environment.body_memory_bytes, bytes);
  used("spool", environment.body_spool_bytes, bytes);
  put(field("idle"), number(environment.idle_upstream_connections));
  charts(section, field, environment.requests, end);
  section.querySelector("[data-none=problems]").classList.toggle("is-empty", environment.problems.length > 0);
  list(field("problems"), () => environment.problems.map(problem), environment.problems);
  fill(section, "lanes", gate.lanes.map(lane => [lane.caller, lane.scope, number(lane.waiting),
    lane.ends_in_s === null ? "unknown" : duration(lane.ends_in_s)]), 2);
  put(field("lanes_more"), more(gate.lanes.length, gate.lanes_total, "lane"));
  fill(section, "scopes", gate.scopes.map(scope => [scope.name, scope.quota_used_up ? "quota used up" : scope.state,
    limitText(scope), scope.opens_in_s ? duration(scope.opens_in_s) : "open", number(scope.waiting),
    number(scope.in_flight)]), 3);
  put(field("scopes_more"), more(gate.scopes.length, gate.scopes_total, "scope"));
  fill(section, "keys", keys.keys.map(key => [key.name, key.fingerprint, key.state, duration(key.age_s)]), 3);
  const warnings = keys.source_fault ? [keys.source_fault, ...keys.warnings] : keys.warnings;
  list(field("warnings"), () => warnings.map(text => make("li", text)), warnings);
  field("usage").hidden = !environment.usage;
  if (environment.usage)
    fill(section, "usage", environment.usage.map(each => [each.caller, number(each.requests), number(each.pages)]), 1);
};

const render = status => {
  if (version && version !== status.version) { location.reload(); return; }
  version = status.version;
  put(document.querySelector("[data-f=version]"), version + ", up " + duration(status.uptime_s));
  const names = new Set(status.environments.map(environment => environment.name));
  for (const [name, section] of sections) if (!names.has(name)) { section.remove(); sections.delete(name); }
  for (const environment of status.environments) show(environment, Date.parse(status.time));
  document.title = status.state.sentence + " - nanonets-proxy";
  // A screen reader announces a new state, but not each second of a countdown.
  const key = status.environments.map(environment => environment.state.code).join();
  if (key !== spokenKey) { spokenKey = key; spoken.textContent = status.state.sentence; }
};

const note = (state, text) => {
  link.dataset.link = state;
  put(link, text);
  main.classList.toggle("is-stale", state === "lost");
};
const lost = () => {
  const since = lastAt ? ": the data is of " + lastAt.toLocaleTimeString() : "";
  note("lost", "No connection to the proxy" + since);
};
const watch = () => {
  clearTimeout(timer);
  timer = setTimeout(() => { lost(); connect(); }, STALE_MS);
};
const connect = () => {
  if (source) source.close();
  const own = source = new EventSource("events");
  watch();
  own.onmessage = event => {
    lastAt = new Date();
    watch();
    render(JSON.parse(event.data));
    note("live", "live, " + lastAt.toLocaleTimeString());
  };
  own.onerror = () => {
    lost();
    if (own.readyState === EventSource.CLOSED && own === source) { clearTimeout(timer); timer = setTimeout(connect, RETRY_MS); }
  };
};
connect();
