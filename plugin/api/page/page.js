// The page asks this server alone, and shows what tasks call themselves as text: nothing here
// makes markup of data.
"use strict";

const step = 100; // rows that "More" adds
const most = 1000; // rows that the API returns
const interval = 5000; // milliseconds between refreshes
const openMost = 10; // open rows that are refreshed: the last that were opened
const patience = 10000; // milliseconds for an answer

const at = (id) => document.getElementById(id);
const view = { rows: step, items: new Map(), open: new Set(), asked: 0 };

// make returns an element with a class, a text or children.
function make(tag, className, content) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  for (const c of [content].flat()) {
    if (c !== undefined && c !== null) e.append(c);
  }
  return e;
}

async function ask(path) {
  const answer = await fetch(path, { headers: { Accept: "application/json" }, signal: AbortSignal.timeout(patience) });
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}

// put sets the children of an element, if they say something else than before. Whoever reads or
// selects keeps the place.
function put(e, content) {
  const next = make("div", "", content);
  if (e.innerHTML !== next.innerHTML) e.replaceChildren(...next.childNodes);
}

// say sets a text, if it is another one: what is read aloud when it changes is not repeated.
function say(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

function fact(name, value) {
  return make("div", "", [make("dt", "", name), make("dd", "", value)]);
}

const number = new Intl.NumberFormat("en");

function showStatus(s) {
  const state = at("state");
  state.className = s.synced ? "good" : s.ready ? "warn" : "bad";
  say(state, s.synced ? "In sync with the masters"
    : !s.ready ? "No state of the cluster is known yet: names are answered SERVFAIL"
    : s.stale ? "From a snapshot, which no master has confirmed"
    : s.connected ? "Connected; the state is not complete yet"
    : "No contact with the masters: the last state is served");
  put(at("facts"), [
    fact("Leader", s.leader || "unknown"), fact("By", s.mode), fact("Tasks", number.format(s.tasks)),
    fact("Agents", number.format(s.agents)), fact("Frameworks", number.format(s.frameworks)),
    ...(s.away_count ? [fact("Agents not back yet", number.format(s.away_count))] : []),
    fact("Cluster", s.cluster), fact("Version", `${s.version} in CoreDNS ${s.coredns}`),
  ]);
  put(at("zonerows"), s.zones.map((z) => make("tr", "", [
    make("td", "", z.name), make("td", "", z.scheme), make("td", "", number.format(z.records)), make("td", "", String(z.serial)),
    make("td", "", z.stale ? "stale" : z.complete ? "complete" : "incomplete"),
    make("td", "", Object.entries(z.skipped).map(([why, n]) => `${number.format(n)} for ${why}`).join(", ") || "–"),
  ])));
}

const keyOf = (t) => `${t.framework}\u0000${t.id}`;

// item returns the list item of a task, which stays the same element for as long as it is shown.
function item(t) {
  const key = keyOf(t);
  let li = view.items.get(key);
  if (!li) {
    const row = make("button", "row");
    row.type = "button";
    row.setAttribute("aria-expanded", "false");
    row.addEventListener("click", () => toggle(key));
    li = make("li", "task", row);
    view.items.set(key, li);
  }
  li.task = t;
  const state = t.published ? t.health === "unhealthy" ? ["unhealthy", "warn"] : ["published", "good"] : ["not published", "bad"];
  put(li.firstChild, [
    make("span", "mono id", t.id), make("span", "mono", t.addresses.join(" ") || "–"), make("span", "agent", t.agent),
    make("span", state[1], state[0]), ...(t.skipped.length ? [make("span", "why", t.skipped.join("; "))] : []),
  ]);
  return li;
}

function showTasks(found) {
  const shown = [];
  let app = "";
  for (const t of found.tasks) {
    const name = `${t.framework} / ${t.name}`;
    if (name !== app) {
      app = name;
      shown.push(make("li", "app", [t.dns_name || name, ...(t.dns_name ? [make("span", "hint", `  ${name}`)] : [])]));
    }
    shown.push(item(t));
  }
  const keep = new Set(found.tasks.map(keyOf));
  for (const key of view.items.keys()) {
    if (!keep.has(key)) {
      view.items.delete(key);
      view.open.delete(key);
    }
  }
  arrange(at("tasks"), shown);
  say(at("count"), found.total === found.known && !at("skipped").checked ? `${number.format(found.known)} tasks`
    : `${number.format(found.total)} of ${number.format(found.known)} tasks`);
  at("more").hidden = found.tasks.length >= found.total || view.rows >= most;
}

// arrange gives a list its children, and moves none that is in its place: the focus stays.
function arrange(list, children) {
  let place = list.firstChild;
  for (const child of children) {
    if (place && place.className === "app" && child.className === "app" && place.textContent === child.textContent) {
      place = place.nextSibling;
    } else if (child === place) {
      place = place.nextSibling;
    } else {
      list.insertBefore(child, place);
    }
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

function toggle(key) {
  const li = view.items.get(key);
  const open = !view.open.has(key);
  li.firstChild.setAttribute("aria-expanded", String(open));
  if (open) {
    view.open.add(key);
    li.append(make("div", "detail", "Asking…"));
    showDetail(key);
  } else {
    view.open.delete(key);
    li.lastChild.remove();
  }
}

const list = (title, items) => items.length ? [make("h3", "", title), make("ul", "mono", items.map((i) => make("li", "", i)))] : [];

async function showDetail(key) {
  const li = view.items.get(key);
  let content;
  try {
    const e = await ask("v1/explain/" + encodeURIComponent(li.task.id));
    content = detail(e.tasks.find((t) => keyOf(t) === key) || li.task);
  } catch (err) {
    content = String(err.message || err);
  }
  if (view.open.has(key) && view.items.get(key) === li) put(li.lastChild, content);
}

// detail says all that is known of a task.
function detail(t) {
  const sources = Object.entries(t.sources || {}).map(([source, addrs]) => `${source}: ${addrs.join(" ")}${source === t.source ? "  (taken)" : ""}`);
  const names = (t.names || []).filter((name) => !name.startsWith("_")); // services stand with their ports
  return [
    make("p", "", `${t.state}${t.health ? ", " + t.health : ""}${t.retained ? ", known from before a failover" : ""}. Framework ${t.framework}, agent ${t.agent}.`),
    ...list("Why something is not published", t.skipped), ...list("Addresses by source", sources), ...list("Names", names),
    ...list("Ports", (t.ports || []).map((p) => `${p.service} → ${p.target}:${p.port}`)),
    make("p", "", [explainLink(t.id)]),
  ];
}

function explainLink(name) {
  const a = make("a", "", "as JSON");
  a.href = "v1/explain/" + encodeURIComponent(name);
  return a;
}

// explainName says why a name that was searched for answers what it answers.
async function explainName(text) {
  const box = at("explained");
  const isName = /^\S+\.\S+$/.test(text) && !/^[\d.]+$/.test(text);
  const e = isName ? await ask("v1/explain/" + encodeURIComponent(text)) : { zone: null };
  if (at("text").value.trim() !== text) return;
  box.hidden = !e.zone;
  if (box.hidden) {
    box.replaceChildren();
    return;
  }
  put(box, [make("div", "detail", [
    make("h3", "", `${e.name} ${e.rcode}`), ...list("Answer", e.answer), ...list("Why", e.reasons || []), make("p", "", [explainLink(text)]),
  ])]);
}

async function refresh() {
  const turn = ++view.asked;
  const text = at("text").value.trim();
  try {
    const query = new URLSearchParams({ q: text, limit: view.rows, skipped: at("skipped").checked });
    const [status, found] = await Promise.all([ask("v1/status"), ask("v1/tasks?" + query)]);
    if (turn !== view.asked) return; // another question was asked meanwhile
    showStatus(status);
    showTasks(found);
    await Promise.all([explainName(text), ...[...view.open].slice(-openMost).map(showDetail)]);
  } catch (err) {
    if (turn !== view.asked) return;
    at("state").className = "bad";
    say(at("state"), `This server does not answer: ${err.message || err}`);
  }
}

// every refreshes for as long as the page is looked at.
async function every() {
  if (!document.hidden) await refresh();
  setTimeout(every, interval);
}

function search() {
  view.rows = step;
  const state = new URLSearchParams();
  if (at("text").value) state.set("q", at("text").value);
  if (at("skipped").checked) state.set("skipped", "true");
  history.replaceState(null, "", state.size ? "#" + state : location.pathname);
  refresh();
}

function move(by) {
  const rows = [...document.querySelectorAll(".row")];
  const now = rows.indexOf(document.activeElement);
  const next = rows[Math.max(0, Math.min(rows.length - 1, now + by))];
  if (next) next.focus();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
  if (event.key === "/" && document.activeElement !== at("text")) at("text").focus();
  else if (event.key === "ArrowDown") move(1);
  else if (event.key === "ArrowUp") move(-1);
  else return;
  event.preventDefault();
});

let typing;
at("text").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(search, 200);
});
at("skipped").addEventListener("change", search);
at("search").addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});
at("more").addEventListener("click", () => {
  view.rows = Math.min(view.rows + step, most);
  refresh();
});

const before = new URLSearchParams(location.hash.slice(1));
at("text").value = before.get("q") || "";
at("skipped").checked = before.get("skipped") === "true";
every();
