"use strict";
// The web admin: every page is the answer of a command, asked with the operator's own rights.

const TEXT = {
  ru: {
    "Calls": "Вызовы", "Call": "Вызов", "Records": "Записи о вызовах", "no calls": "вызовов нет", "no records": "записей нет",
    "Number": "Номер", "lost": "потеряно", "Neighbours": "Встречные стороны", "not asked yet": "ещё не опрошен", "message ladder": "лестница сообщений",
    "Tree": "Дерево", "Domains": "Домены", "Bridges": "Бриджи", "Trace": "Трассировка", "Licence": "Лицензия",
    "Journal": "Журнал", "Crashes": "Сбои", "Messages": "Сообщения", "Console": "Консоль", "Log in": "Войти",
    "Log out": "Выйти", "User": "Пользователь", "Password": "Пароль", "Search": "Поиск", "Kill": "Убить",
    "Stop": "Остановить", "Start": "Запустить", "Trace messages": "Трассировать сообщения", "Stop tracing": "Остановить трассировку",
    "Subscribers": "Абоненты", "Aliases": "Алиасы", "Number plans": "Планы нумерации", "Contexts": "Контексты",
    "Trunks": "Транки", "Properties": "Свойства", "Restrictions": "Ограничения", "Yes": "Да", "No": "Нет", "Domain": "Домен",
    "From": "От", "To": "Кому", "Interface": "Интерфейс", "Filter": "Фильтр", "Stream": "Поток", "Who": "Кто", "Nothing yet.": "Пока пусто.",
    "no rule fits": "ни одно правило не подходит", "Log": "Лог", "Restart": "Перезапустить", "Subscriber": "Абонент",
    "Level": "Уровень", "Text": "Текст", "Collapse all": "Свернуть всё", "Expand all": "Развернуть всё", "Help": "Справка",
    "Alarms": "Аварии", "Severity": "Важность", "Class": "Класс", "Instance": "Объект", "Since": "С", "Count": "Раз", "Cause": "Причина",
    "Cleared": "Снята", "By": "Кем", "Clear": "Снять", "State": "Состояние", "critical": "критическая", "major": "серьёзная", "minor": "незначительная",
    "warning": "предупреждение", "cleared": "снятые", "masked": "и замаскированные", "shown": "показано",
    "state": "состояние", "last crash": "последний сбой", "children": "дочерние", "Close": "Закрыть", "live": "на связи",
    "the node does not answer": "узел не отвечает", "Kind": "Вид", "Registrations": "Регистрации", "Older": "Раньше",
    "/  search; g then a letter: go to a page; j, k: move through a list; Enter: open; ?: this help; Esc: leave a field":
      "/  поиск; g и буква: перейти на страницу; j, k: двигаться по списку; Enter: открыть; ?: эта справка; Esc: выйти из поля",
  },
};
Object.assign(TEXT.ru, MEDIATOR_RU, IVR_RU);
let lang = localStorage.getItem("lang") || (navigator.language.startsWith("ru") ? "ru" : "en");
const t = (text) => (TEXT[lang] && TEXT[lang][text]) || text;
let session = null;
let live = null;
let tree = [];
let treeAt = 0;
let before = { at: 0, tree: [] };
let messages = [];
let logLines = [];

const $ = (id) => document.getElementById(id);

// Elements are made, never parsed: no text of the node's can become markup.
function el(name, attributes = {}, ...children) {
  const e = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) e.addEventListener(key.slice(2), value);
    else if (value === true) e.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) e.setAttribute(key, value);
  }
  e.append(...children.filter((c) => c !== null && c !== undefined));
  return e;
}

async function call(path, body) {
  const options = body === undefined ? {} : {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF": session ? session.csrf : "" },
    body: JSON.stringify(body),
  };
  const response = await fetch(path, options);
  const answer = await response.json().catch(() => ({ error: response.statusText }));
  if (response.status === 401 && path !== "api/login") { session = null; show(); }
  if (!response.ok) throw new Error(answer.error || response.statusText);
  return answer;
}

function ask(question) {
  const dialog = $("ask");
  dialog.querySelector("p").textContent = question;
  const [no, yes] = dialog.querySelectorAll("button");
  no.textContent = t("No");
  yes.textContent = t("Yes");
  return new Promise((resolve) => {
    const end = (answer) => () => { dialog.close(); resolve(answer); };
    no.onclick = end(false);
    yes.onclick = end(true);
    dialog.oncancel = () => resolve(false);
    dialog.showModal();
  });
}

// Runs a command; a question of its goes to the operator.
async function run(line, cwd = "") {
  let answer = await call("api/run", { line, cwd });
  if (answer.question) {
    if (!await ask(answer.question)) return null;
    answer = await call("api/run", { line, cwd, confirmed: true });
  }
  return answer;
}

async function data(line) {
  const answer = await run(line);
  if (!answer) return null;
  if (answer.status !== 0) throw new Error(answer.text);
  // A list says how much of it there is.
  const part = /^(\d+) of (\d+) shown/m.exec(answer.text);
  if (part && part[1] !== part[2] && Array.isArray(answer.data)) answer.data.part = `${t("shown")}: ${part[1]} / ${part[2]}`;
  return answer.data;
}

// A time as the operator's clock shows it; the node's own words are in the title of the cell.
const isTime = (v) => typeof v === "string" && /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d/.test(v);
const when = (v) => new Date(v).toLocaleString(lang === "ru" ? "ru-RU" : "sv-SE", { hour12: false });
const shown = (v) => isTime(v) ? when(v) : v === null || v === undefined ? "" : typeof v === "object" ? JSON.stringify(v) : String(v);

function table(rows, links = {}) {
  if (!Array.isArray(rows)) return el("pre", {}, JSON.stringify(rows, null, 2));
  if (rows.length === 0) return el("p", { class: "dim" }, t("Nothing yet."));
  const columns = Object.keys(rows[0]);
  const head = el("tr", {}, ...columns.map((c) => el("th", { scope: "col" }, c.replaceAll("_", " "))));
  const cell = (row, c) => el("td", { title: isTime(row[c]) ? row[c] : null }, links[c] ? el("a", { href: links[c](row) }, shown(row[c])) : shown(row[c]));
  const body = rows.map((row) => el("tr", {}, ...columns.map((c) => cell(row, c))));
  const note = rows.part ? el("p", { class: "dim" }, rows.part) : null;
  return el("div", { class: "scroll" }, el("table", {}, el("thead", {}, head), el("tbody", {}, ...body)), note);
}

// Address, name, page, key behind g, whether it is for system administrators.
const common = [
  ["tree", "Tree", pageTree, "t", true], ["alarms", "Alarms", pageAlarms, "k"], ["journal", "Journal", pageJournal, "j", true], ["log", "Log", pageLog, "l", true],
  ["crashes", "Crashes", pageCrashes, "x", true], ["messages", "Messages", pageMessages, "m", true], ["console", "Console", pageConsole, "c"],
];
const pages = {
  node: [
    common[0], common[1], ["domains", "Domains", pageDomains, "d"], ["calls", "Calls", pageCalls, "a"], ["bridges", "Bridges", pageBridges, "b"],
    ["ivr", "IVR", pageIvr, "v"], ["trace", "Trace", pageTrace, "r"], ["licence", "Licence", pageLicence, "i"], ...common.slice(2),
  ],
  mediator: [
    ["state", "State", pageState, "s", true], ["ssh", "SSH", pageSsh, "h", true], ["sorm", "СОРМ", pageSorm, "o", true],
    ["radius", "RADIUS", pageRadius, "r", true], ["streams", "Streams", pageStreams, "e", true], ["monitor", "Monitor", pageMonitor, "i", true], ["etsi", "ETSI", pageEtsi, "z", true],
    ["network", "Network", pageNetwork, "n", true], ["changes", "Changes", pageChanges, "g", true], ...common,
  ],
};
const isSystem = () => session && session.roles.includes("ecss-system-admin");
const allowedPages = () => pages[session.program].filter((p) => isSystem() || !p[4]);
// Each is called while its page is shown, when there is something new.
const on = { tree: null, message: null, log: null, crash: null, alarm: null };

async function show() {
  document.documentElement.lang = lang;
  for (const name of Object.keys(on)) on[name] = null;
  const main = $("main");
  $("logout").hidden = !session;
  $("logout").textContent = t("Log out");
  $("lang").textContent = lang === "ru" ? "EN" : "RU";
  $("who").textContent = session ? session.user : "";
  const home = session && (allowedPages()[0] || [""])[0];
  const [page, ...rest] = decodeURIComponent(location.hash.slice(1) || home).split("|");
  const of = { actor: "tree", domain: "domains", subscriber: "domains", call: "calls", script: "ivr" }[page] || page;
  $("nav").replaceChildren(...(session ? allowedPages() : []).map(([id, name, , letter]) =>
    el("a", { href: `#${id}`, title: `g ${letter}`, "aria-current": id === of ? "page" : null }, t(name))));
  $("live").hidden = !session || !isSystem();
  if (!session) {
    disconnect();
    $("alarms").hidden = true;
    main.replaceChildren(loginForm());
    return;
  }
  connect();
  countAlarms();
  const inner = { actor: pageActor, domain: pageDomain, subscriber: pageSubscriber, call: pageCall, script: pageScript };
  const render = inner[page] || (allowedPages().find((p) => p[0] === page) || allowedPages()[0])[2];
  const asked = location.hash;
  let shownPage;
  try {
    shownPage = await render(...rest);
  } catch (e) {
    shownPage = el("p", { class: "error" }, e.message);
  }
  // Whoever has gone on meanwhile sees where they went.
  if (location.hash === asked) main.replaceChildren(shownPage);
}

function loginForm() {
  const problem = el("p", { class: "error", role: "alert" });
  const user = el("input", { name: "user", autocomplete: "username", required: true, autofocus: true });
  const password = el("input", { name: "password", type: "password", autocomplete: "current-password", required: true });
  const submit = async (event) => {
    event.preventDefault();
    try {
      session = await call("api/login", { user: user.value, password: password.value });
      show();
    } catch (e) { problem.textContent = e.message; }
  };
  return el("form", { class: "login", onsubmit: submit },
    el("label", {}, t("User"), " ", user), el("label", {}, t("Password"), " ", password),
    el("button", {}, t("Log in")), problem);
}

// What comes over the stream of events.
const take = {
  tree: (news) => { before = { at: treeAt, tree }; tree = news; treeAt = performance.now(); },
  message: (news) => { messages = [news, ...messages].slice(0, 500); },
  log: (news) => { logLines = [news, ...logLines].slice(0, 1000); },
  crash: () => {},
  alarm: () => { countAlarms(); },
};

function heard(name, text) {
  if (name === "line") {
    $("live").className = text ? "dot running" : "dot stopped";
    $("live").title = t(text ? "live" : "the node does not answer");
    return;
  }
  take[name](JSON.parse(text));
  if (on[name]) on[name]();
}

// One stream for all tabs (live.js), none while a tab is hidden; a browser without shared workers has one in each tab.
function connect() {
  if (live || !isSystem() || document.hidden) return;
  if (window.SharedWorker) {
    const worker = new SharedWorker("live.js");
    worker.port.onmessage = ({ data: [name, text] }) => heard(name, text);
    const here = () => worker.port.postMessage(true);
    const timer = setInterval(here, 10000);
    here();
    live = { close: () => { clearInterval(timer); worker.port.postMessage(false); worker.port.close(); } };
    return;
  }
  const source = new EventSource("api/live");
  for (const name of Object.keys(take)) source.addEventListener(name, (e) => heard(name, e.data));
  source.onopen = () => heard("line", true);
  source.onerror = () => heard("line", false);
  live = source;
}

function disconnect() {
  if (live) live.close();
  live = null;
}

document.addEventListener("visibilitychange", () => { if (document.hidden) disconnect(); else if (session) { connect(); countAlarms(); } });
window.addEventListener("pagehide", disconnect);

// How many alarms there are stands beside the pages' names, in the colour of the worst.
async function countAlarms() {
  if (!session || document.hidden) return;
  const all = await data("alarms/list").catch(() => []);
  const worst = all.length ? all[0].severity : "";
  $("alarms").hidden = all.length === 0;
  $("alarms").className = `badge ${worst}`;
  $("alarms").textContent = `${all.length}`;
  $("alarms").title = `${t("Alarms")}: ${all.length}, ${t(worst)}`;
}
setInterval(() => { if (session && !isSystem()) countAlarms(); }, 10000);

async function pageAlarms(filter = "{}") {
  const given = JSON.parse(filter);
  const choose = (name, label, all) => el("select", { name, "aria-label": t(label) },
    el("option", { value: "" }, t(label)), ...all.map((a) => el("option", { value: a, selected: a === given[name] }, t(a))));
  const severity = choose("severity", "Severity", ["critical", "major", "minor", "warning"]);
  const state = choose("state", "State", ["cleared", "masked"]);
  const text = el("input", { name: "match", placeholder: t("Text"), "aria-label": t("Text"), value: given.match || "" });
  const words = ["severity", "match"].filter((n) => given[n]).map((n) => `--${n} ${quoted(given[n])}`).join(" ");
  const flag = given.state ? `--${given.state}` : "";
  const place = el("div", { id: "alarm-list" });
  const clear = (a) => async () => {
    const domain = a.domain ? `-d ${quoted(a.domain)}` : "";
    if (await run(`alarms/clear -c ${quoted(a.class)} -i ${quoted(a.instance)} ${domain}`)) draw();
  };
  async function draw() {
    const all = await data(`alarms/list ${flag} ${words}`);
    countAlarms();
    if (all.length === 0) { place.replaceChildren(el("p", { class: "dim" }, t("Nothing yet."))); return; }
    const over = given.state === "cleared";
    const columns = ["Severity", "Class", "Domain", "Instance", "Since", "Count", "Cause", ...(over ? ["Cleared", "By"] : isSystem() ? [""] : [])];
    const row = (a) => el("tr", {},
      el("td", {}, el("span", { class: `badge ${a.severity}` }, t(a.severity))), el("td", {}, a.class), el("td", {}, a.domain || ""), el("td", {}, a.instance),
      el("td", { title: a.since }, when(a.since)), el("td", {}, String(a.count)), el("td", {}, a.cause),
      ...(over ? [el("td", { title: a.cleared }, when(a.cleared)), el("td", {}, a.cleared_by)]
        : isSystem() ? [el("td", {}, el("button", { type: "button", onclick: clear(a) }, t("Clear")))] : []));
    place.replaceChildren(el("div", { class: "scroll" }, el("table", {},
      el("thead", {}, el("tr", {}, ...columns.map((c) => el("th", { scope: "col" }, t(c))))), el("tbody", {}, ...all.map(row)))));
  }
  on.alarm = () => draw().catch(() => {});
  await draw();
  return el("div", {}, filterForm("alarms", [severity, state, text], given), place);
}

// Messages a second of an actor, between the last two pictures of the tree.
function rateOf(address) {
  const find = (leaves) => leaves.find((l) => l.address === address);
  const [then, now] = [find(before.tree), find(tree)];
  if (!then || !now || !then.vitals || !now.vitals || then.pid !== now.pid || treeAt <= before.at) return null;
  return (now.vitals.handled - then.vitals.handled) * 1000 / (treeAt - before.at);
}

const actorLink = (address) => "#" + encodeURIComponent(`actor|${address}`);

async function pageTree() {
  if (tree.length === 0) tree = await data("node/tree");
  const search = el("input", { type: "search", placeholder: t("Search"), "aria-label": t("Search"), id: "search" });
  const place = el("div");
  const closed = new Set();
  const draw = () => {
    const wanted = search.value.trim();
    const children = new Map();
    for (const leaf of tree) {
      const parent = leaf.parent || "";
      children.set(parent, [...(children.get(parent) || []), leaf]);
    }
    const fits = (leaf) => !wanted || leaf.address.includes(wanted) || (children.get(leaf.address) || []).some(fits);
    const item = (leaf) => {
      const below = (children.get(leaf.address) || []).filter(fits);
      const v = leaf.vitals || {};
      const about = `${v.handled ?? 0} handled, ${v.mailbox ?? 0} waiting, ${leaf.restarts} restarts`;
      const line = [el("span", { class: `dot ${leaf.status}`, title: leaf.status }),
        el("a", { href: actorLink(leaf.address), "data-actor": leaf.address }, leaf.address), " ",
        el("span", { class: "dim" }, leaf.status === "running" ? about : leaf.status)];
      if (below.length === 0) return el("li", {}, el("span", { class: "leaf" }, ...line));
      const toggled = (e) => e.target.open ? closed.delete(leaf.address) : closed.add(leaf.address);
      return el("li", {}, el("details", { open: !closed.has(leaf.address), ontoggle: toggled },
        el("summary", {}, ...line), el("ul", { class: "tree" }, ...below.map(item))));
    };
    place.replaceChildren(el("ul", { class: "tree" }, ...(children.get("") || []).filter(fits).map(item)));
  };
  search.addEventListener("input", draw);
  on.tree = draw;
  draw();
  const all = (name, act) => el("button", { type: "button", onclick: () => { act(); draw(); } }, t(name));
  const parents = () => new Set(tree.map((l) => l.parent).filter(Boolean));
  return el("div", {}, el("form", { class: "row", onsubmit: (e) => e.preventDefault() }, search,
    all("Collapse all", () => parents().forEach((p) => closed.add(p))), all("Expand all", () => closed.clear())), place);
}

async function pageActor(address) {
  const place = el("div");
  const problem = el("p", { class: "error", role: "alert" });
  const act = (line) => async () => {
    problem.textContent = "";
    try { await data(line); await draw(); } catch (e) { problem.textContent = e.message; }
  };
  let shownText = "";
  const draw = async () => {
    const answer = await run(`node/actor/info ${address}`);
    const a = answer.status === 0 ? answer.data : null;
    const text = a ? JSON.stringify(a) : answer.text;
    if (text === shownText) return;
    shownText = text;
    const button = (name, line, bad) => el("button", { type: "button", class: bad ? "bad" : null, onclick: act(line) }, t(name));
    if (!a) {
      place.replaceChildren(el("p", { id: "gone" }, answer.text), button("Start", `node/actor/start ${address}`));
      return;
    }
    const facts = [["pid", a.pid], ["actor", a.actor], ["supervisor", a.supervisor], ["started", a.started],
      ["restarts", a.restarts], ["handled", a.vitals.handled], ["mailbox", `${a.vitals.mailbox} / ${a.vitals.mailbox_limit}`],
      ["refused", a.vitals.refused], ["busy", `${a.vitals.busy_us} µs`]];
    const links = (addresses) => addresses.flatMap((x, i) => [i ? ", " : "", el("a", { href: actorLink(x) }, x)]);
    const children = tree.filter((l) => l.parent === address).map((l) => l.address);
    place.replaceChildren(
      el("form", { class: "row", onsubmit: (e) => e.preventDefault() },
        button("Restart", `node/actor/restart ${address}`), button("Kill", `node/actor/kill ${address}`, true),
        button("Stop", `node/actor/stop ${address}`, true),
        button(a.traced ? "Stop tracing" : "Trace messages", `node/actor/trace ${address} ${!a.traced}`)),
      el("table", {}, ...facts.map(([n, v]) => el("tr", {}, el("th", { scope: "row" }, n),
        el("td", { "data-fact": n }, n === "supervisor" && v ? el("a", { href: actorLink(v) }, v) : shown(v)))),
        el("tr", {}, el("th", { scope: "row" }, "rate"), el("td", { id: "rate" })),
        el("tr", {}, el("th", { scope: "row" }, "monitored by"), el("td", {}, ...links(a.monitored_by))),
        el("tr", {}, el("th", { scope: "row" }, t("children")), el("td", {}, ...links(children)))),
      el("h3", {}, t("state")), el("pre", { id: "state" }, JSON.stringify(a.state, null, 2)),
      a.last_crash ? el("h3", {}, t("last crash")) : null,
      a.last_crash ? el("pre", {}, JSON.stringify(a.last_crash, null, 2)) : null);
  };
  await draw();
  on.tree = () => draw().then(() => {
    const rate = rateOf(address);
    if ($("rate")) $("rate").textContent = rate === null ? "" : `${rate.toFixed(1)} /s`;
  }).catch((e) => { problem.textContent = e.message; });
  return el("div", {}, el("h2", {}, address), problem, place);
}

async function pageDomains() {
  return table(await data("domain/list"), { domain: (r) => "#" + encodeURIComponent(`domain|${r.domain}`) });
}

async function pageDomain(name) {
  const parts = [["Properties", "properties/info"], ["Restrictions", "properties/restrictions/info"],
    ["Subscribers", "sip/user/list"], ["Aliases", "alias/list"], ["Number plans", "np/list"],
    ["Contexts", "routing/list"], ["Trunks", "trunk/sip/list"], ["Neighbours", "trunk/sip/health"], ["Registrations", "sip/user/registered"]];
  const out = el("div", {}, el("h2", {}, name));
  for (const [title, line] of parts) {
    if (line === "sip/user/registered") {
      const rows = (await data(`domain/${name}/${line}`)).map(({ interface: i, registration: r }) =>
        ({ interface: i, contact: r.contact, from: r.received, user_agent: r.user_agent, expires: r.expires }));
      out.append(el("h3", {}, t(title)), table(rows));
      continue;
    }
    if (line === "trunk/sip/health") {
      const rows = (await data(`domain/${name}/${line}`)).map(({ trunk, health: h }) =>
        h ? { trunk, state: h.up ? "up" : "down", since: h.since, asked: h.asked, said: h.said } : { trunk, state: t("not asked yet") });
      out.append(el("h3", {}, t(title)), table(rows));
      continue;
    }
    const cards = line === "sip/user/list" ? { interface: (r) => "#" + encodeURIComponent(`subscriber|${name}|${r.interface}`) } : {};
    out.append(el("h3", {}, t(title)), table(await data(`domain/${name}/${line}`), cards));
    if (line === "np/list") {
      for (const plan of await data(`domain/${name}/np/list`)) {
        out.append(el("h4", {}, plan.name), table(await data(`domain/${name}/np/numbers/list ${plan.name}`)));
      }
    }
  }
  return out;
}

async function pageSubscriber(domain, iface) {
  const back = el("a", { href: "#" + encodeURIComponent(`domain|${domain}`) }, domain);
  return el("div", {}, el("h2", {}, `${t("Subscriber")} ${iface}`), el("p", {}, back), table(await data(`domain/${domain}/sip/user/info ${iface}`)));
}

const callId = (name) => name.split("/").pop();
const callLink = (domain, name) => "#" + encodeURIComponent(`call|${domain}|${callId(name)}`);

// Draws again every second for as long as its page is shown.
function again(draw) {
  const here = location.hash;
  const timer = setInterval(() => {
    if (location.hash !== here || !session) { clearInterval(timer); return; }
    draw().catch(() => {});
  }, 1000);
}

async function pageCalls(chosen) {
  const domains = (await data("domain/list")).map((d) => d.domain);
  const domain = el("select", { "aria-label": t("Domain"), onchange: () => draw() }, ...domains.map((d) => el("option", { selected: d === chosen ? "" : null }, d)));
  const number = el("input", { placeholder: t("Number"), "aria-label": t("Number"), size: 16, onchange: () => draw() });
  const now = el("div", { id: "calls" }), past = el("div", { id: "records" });
  const clock = (time) => new Date(time).toLocaleTimeString();
  const quality = (q) => q ? `${q.codec} ${t("lost")} ${q.lost}/${q.received + q.lost}, ${q.jitter_ms.toFixed(1)} ms` : "";
  async function draw() {
    if (!domain.value) return;
    const all = await data(`domain/${domain.value}/call/list`);
    now.replaceChildren(all.length ? table(all.map((c) => ({
      call: callId(c.call), a: c.a, b: c.b, state: c.state, since: clock(c.since), domains: c.domains.join(", "), bridges: c.bridges.join(", "),
      legs: c.legs.map((l) => `${l.iface} ${l.state}${l.holds ? " (hold)" : ""} ${quality(l.quality)}`).join("; "),
    })), { call: (r) => callLink(domain.value, r.call) }) : el("p", { class: "dim" }, t("no calls")));
    const wanted = number.value.trim();
    const records = await data(`domain/${domain.value}/cdr/list${wanted ? ` --number ${wanted}` : ""}`);
    past.replaceChildren(records.length ? table(records.map(({ cdr, side, seconds }) => ({
      call: callId(cdr.call), setup: cdr.setup, a: side.a, b: side.b, from: side.from, to: side.to, seconds, cause: cdr.cause, by: cdr.released_by, service: cdr.service,
    })), { call: (r) => callLink(domain.value, r.call) }) : el("p", { class: "dim" }, t("no records")));
  }
  await draw();
  again(draw);
  return el("div", {}, el("form", { class: "row", onsubmit: (e) => { e.preventDefault(); draw(); } }, domain, number),
    el("h3", {}, t("Calls")), now, el("h3", {}, t("Records")), past);
}

async function pageCall(domain, id) {
  const place = el("div", { id: "ladder" });
  let seen = 0;
  async function draw() {
    const lines = await data(`domain/${domain}/call/ladder ${id}`);
    if (lines.length !== seen) { seen = lines.length; place.replaceChildren(drawLadder(lines)); }
  }
  await draw();
  again(draw);
  return el("div", {}, el("h2", {}, `${t("Call")} ${id}`), el("p", {}, el("a", { href: "#" + encodeURIComponent(`calls|${domain}`) }, domain)), place);
}

// Who spoke as columns, what was said as arrows between them, from top to bottom.
function drawLadder(lines) {
  const ns = (tag, attributes, ...children) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [k, v] of Object.entries(attributes)) node.setAttribute(k, v);
    node.append(...children);
    return node;
  };
  const who = [];
  for (const l of lines) for (const w of [l.from, l.to]) if (!who.includes(w)) who.push(w);
  // The call in the middle of its legs, the peers outside.
  const rank = (w) => (w === "call" ? 2 : w === "media" ? 3 : w.startsWith("leg ") ? 1 : 0);
  const left = who.filter((w) => rank(w) < 2).filter((_, i, all) => i < all.length / 2);
  const right = who.filter((w) => rank(w) < 2 && !left.includes(w));
  const order = [...left, ...who.filter((w) => rank(w) >= 2), ...right];
  const step = 190, row = 30, top = 50;
  const x = (w) => 110 + order.indexOf(w) * step;
  const height = top + lines.length * row + 20, width = 110 + order.length * step;
  const svg = ns("svg", { class: "ladder", role: "img", "aria-label": t("message ladder"), width, height, viewBox: `0 0 ${width} ${height}` });
  svg.append(ns("defs", {}, ns("marker", { id: "head", viewBox: "0 0 10 10", refX: 10, refY: 5, markerWidth: 8, markerHeight: 8, orient: "auto-start-reverse" }, ns("path", { d: "M0 0 L10 5 L0 10 z", fill: "currentColor" }))));
  for (const w of order) {
    svg.append(ns("text", { x: x(w), y: 20, "text-anchor": "middle", "font-weight": "bold" }, w),
      ns("line", { x1: x(w), x2: x(w), y1: 30, y2: height, stroke: "currentColor", "stroke-opacity": 0.25 }));
  }
  lines.forEach((l, i) => {
    const y = top + i * row;
    const at = new Date(l.at);
    svg.append(ns("text", { x: 4, y: y + 4, "font-size": 11, "fill-opacity": 0.7, fill: "currentColor" }, `${at.toTimeString().slice(0, 8)}.${String(at.getMilliseconds()).padStart(3, "0")}`));
    const [a, b] = [x(l.from), x(l.to)];
    if (a === b) {
      svg.append(ns("text", { x: a + 6, y: y + 4, "font-size": 12, fill: "currentColor" }, l.text));
      return;
    }
    svg.append(ns("line", { x1: a, x2: b, y1: y, y2: y, stroke: "currentColor", "marker-end": "url(#head)" }),
      ns("text", { x: (a + b) / 2, y: y - 4, "text-anchor": "middle", "font-size": 12, fill: "currentColor" }, l.text.length > 40 ? l.text.slice(0, 39) + "…" : l.text));
  });
  return el("div", { class: "scroll" }, svg);
}

async function pageBridges() {
  const rows = (await data("bridge/list")).map(({ bridge: b, calls }) => ({
    name: b.name, duplex: b.duplex, strict: b.strict, capacity: b.capacity ?? "unbounded", blocked: b.blocked, calls,
    side_a: `${b.a.domain} (${b.a.np}, ${b.a.iface}, ${b.a.context})`, side_b: `${b.b.domain} (${b.b.np}, ${b.b.iface}, ${b.b.context})`,
  }));
  return table(rows);
}

async function pageTrace() {
  const domains = (await data("domain/list")).map((d) => d.domain);
  const input = (name) => el("input", { name, placeholder: t(name), "aria-label": t(name), size: 16 });
  const domain = el("select", { name: "domain", "aria-label": t("Domain") }, ...domains.map((d) => el("option", {}, d)));
  const [iface, from, to] = [input("Interface"), input("From"), input("To")];
  const place = el("div", { id: "way" });
  const submit = async (event) => {
    event.preventDefault();
    const parts = [["iface", iface], ["cgpn.digits", from], ["cdpn.digits", to]].filter(([, i]) => i.value.trim());
    const words = parts.map(([n, i]) => `${n}=${i.value.trim()}`).join(" ");
    try { place.replaceChildren(drawWay(await data(`domain/${domain.value}/routing/trace ${words}`))); }
    catch (e) { place.replaceChildren(el("p", { class: "error" }, e.message)); }
  };
  return el("div", {}, el("form", { class: "row", onsubmit: submit }, domain, iface, from, to, el("button", {}, t("Trace"))), place);
}

// The way of a call as stops from top to bottom.
function drawWay({ trace, from, to }) {
  const stops = [el("div", { class: "stop" }, `${from} → ${to}`)];
  for (const s of trace.steps) {
    if (s.kind === "context") {
      const passed = s.passed.map((p) => el("div", { class: "dim" }, `– ${p.rule}: ${p.failed}`));
      stops.push(el("div", { class: "stop" }, el("strong", {}, `${s.domain} / ${s.context}`), el("div", {}, `A ${s.a}, B ${s.b}`),
        ...passed, el("div", {}, s.rule ? `+ ${s.rule}: ${s.result}` : t("no rule fits"))));
    } else if (s.kind === "bridge") {
      stops.push(el("div", { class: "stop bridge" }, `⇄ ${s.bridge}: ${s.from} → ${s.to} (${s.calls} / ${s.capacity ?? "∞"})`));
    } else if (s.kind === "renumbered") {
      stops.push(el("div", { class: "stop" }, `${s.plan}: ${s.from} = ${s.to}`));
    } else {
      stops.push(el("div", { class: "stop" }, `${s.plan}: ${s.number} → ${s.bound}`));
    }
  }
  const o = trace.outcome;
  const end = o.kind === "local" ? `${o.alias} (${o.iface}), ${o.domain}` : o.kind === "external" ? `${o.trunk} (${o.domain})` : o.text;
  stops.push(el("div", { class: `stop ${o.kind === "refused" ? "bad" : "good"}`, "data-outcome": o.kind }, el("strong", {}, o.kind), " ", end));
  const way = el("div", { class: "way" });
  stops.forEach((s, i) => { if (i) way.append(el("div", { class: "arrow" }, "↓")); way.append(s); });
  return el("div", {}, way, el("h3", {}, "A, B"), el("pre", {}, JSON.stringify({ a: trace.a, b: trace.b, sorm: trace.sorm }, null, 2)));
}

async function pageLicence() {
  const lines = ["show-licence --details 1", "current-limits"].map((l) => run(`cluster/storage/ds1/licence/${l}`));
  const answers = await Promise.all(lines);
  return el("div", {}, ...answers.map((a) => el("pre", {}, a.text)));
}

// Text as one word of a command line, which knows two quotes and no escapes.
const quoted = (text) => String(text).includes('"') ? `'${String(text).replaceAll("'", "")}'` : `"${text}"`;

// A form whose fields are in the page's address: a filter can be kept as a bookmark.
function filterForm(page, fields, given) {
  const submit = (event) => {
    event.preventDefault();
    const wanted = Object.fromEntries(fields.filter((f) => f.value).map((f) => [f.name, f.value]));
    location.hash = encodeURIComponent(`${page}|${JSON.stringify(wanted)}`);
  };
  return el("form", { class: "row", onsubmit: submit }, ...fields, el("button", {}, t("Filter")));
}

async function pageJournal(filter = "{}") {
  const given = JSON.parse(filter);
  const names = { stream: "Stream", kind: "Kind", who: "Who", text: "Text" };
  const fields = Object.entries(names).map(([name, label]) =>
    el("input", { name, placeholder: t(label), "aria-label": t(label), value: given[name] || "" }));
  const words = Object.entries(given).map(([n, v]) => `--${n} ${quoted(v)}`).join(" ");
  const events = await data(`journal/list --limit 200 ${words}`);
  const rows = events.map((e) => ({
    seq: e.seq, at: e.at, stream: e.stream, event: e.kind, who: e.origin.who, from: e.origin.from, body: JSON.stringify(e.body).slice(0, 300),
  }));
  const last = events[events.length - 1];
  const older = "#" + encodeURIComponent(`journal|${JSON.stringify({ ...given, before: last && last.seq })}`);
  return el("div", {}, filterForm("journal", fields, given), table(rows),
    events.length === 200 ? el("p", {}, el("a", { href: older }, t("Older"))) : null);
}

async function pageLog(filter = "{}") {
  const given = JSON.parse(filter);
  const levels = ["error", "warn", "info", "debug", "trace"];
  const level = el("select", { name: "level", "aria-label": t("Level") }, ...levels.map((l) => el("option", { selected: l === (given.level || "trace") }, l)));
  const text = el("input", { name: "text", placeholder: t("Text"), "aria-label": t("Text"), value: given.text || "" });
  if (logLines.length === 0) logLines = await data("node/log/list --limit 1000");
  const place = el("div", { id: "log" });
  const worst = levels.indexOf(given.level || "trace");
  const wanted = (l) => levels.indexOf(l.level.toLowerCase()) <= worst && (!given.text || `${l.target} ${l.text}`.includes(given.text));
  const draw = () => place.replaceChildren(table(logLines.filter(wanted).slice(0, 300).map((l) => ({ at: l.at, level: l.level, module: l.target, text: l.text }))));
  on.log = draw;
  draw();
  return el("div", {}, filterForm("log", [level, text], given), place);
}

async function pageCrashes() {
  const place = el("div");
  const draw = async () => place.replaceChildren(await crashTable());
  on.crash = () => draw().catch(() => {});
  await draw();
  return place;
}

async function crashTable() {
  const rows = (await data("node/crash/list")).map((r) => ({
    id: r.id, at: r.at, actor: r.address, during: r.during, reason: `${r.reason.reason} ${r.reason.detail || ""}`, handled: r.handled,
  }));
  return table(rows, { actor: (r) => actorLink(r.actor) });
}

async function pageMessages() {
  const place = el("div");
  const draw = () => place.replaceChildren(table(messages.map((m) => ({ at: m.at, from: m.from || "", to: m.to, message: m.text }))));
  on.message = draw;
  draw();
  return place;
}

const past = [];
async function pageConsole() {
  const out = el("pre", { id: "console", "aria-live": "polite" });
  const line = el("input", { id: "line", size: 80, autocomplete: "off", spellcheck: "false", "aria-label": t("Console") });
  let cwd = "";
  let at = past.length;
  const say = (text) => { out.append(text); out.scrollTop = out.scrollHeight; };
  const key = async (event) => {
    if (event.key === "ArrowUp" && at > 0) { at -= 1; line.value = past[at]; event.preventDefault(); }
    if (event.key === "ArrowDown" && at < past.length) { at += 1; line.value = past[at] || ""; event.preventDefault(); }
    if (event.key === "Tab" && line.value && !event.shiftKey) {
      event.preventDefault();
      const typed = line.value;
      const found = await call("api/complete", { line: typed, cwd });
      const texts = found.candidates.map((c) => c.text);
      // Whoever has typed on meanwhile keeps what was typed.
      if (texts.length === 0 || line.value !== typed) return;
      const bytes = new TextEncoder().encode(typed).slice(0, found.start);
      let common = texts[0];
      for (const text of texts) while (!text.startsWith(common)) common = common.slice(0, -1);
      line.value = new TextDecoder().decode(bytes) + common;
      if (texts.length > 1) say(texts.join("\n") + "\n");
    }
  };
  line.addEventListener("keydown", (event) => key(event).catch((e) => say(`${e.message}\n`)));
  const submit = async (event) => {
    event.preventDefault();
    const text = line.value;
    line.value = "";
    if (!text.trim()) return;
    past.push(text);
    at = past.length;
    say(`> ${text}\n`);
    try {
      const answer = await run(text, cwd);
      if (answer) { cwd = answer.cwd; say(answer.text); }
    } catch (e) { say(`${e.message}\n`); }
  };
  return el("div", {}, out, el("form", { class: "row", onsubmit: submit }, line));
}

$("lang").addEventListener("click", () => { lang = lang === "ru" ? "en" : "ru"; localStorage.setItem("lang", lang); show(); });
$("theme").addEventListener("click", () => {
  const dark = getComputedStyle(document.documentElement).colorScheme.includes("dark") &&
    (document.documentElement.dataset.theme === "dark" || matchMedia("(prefers-color-scheme: dark)").matches);
  const next = dark && document.documentElement.dataset.theme !== "light" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  localStorage.setItem("theme", next);
});
$("logout").addEventListener("click", async () => { await call("api/logout", {}).catch(() => {}); session = null; show(); });

// Keys, while no field has the focus: / searches, g and a letter goes to a page, j and k move, ? explains.
let goes = false;
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || !session) return;
  const inField = ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName);
  if (event.key === "Escape" && inField) event.target.blur();
  if (inField || $("ask").open) return;
  if (goes) {
    goes = false;
    const page = allowedPages().find((p) => p[3] === event.key);
    if (page) { location.hash = page[0]; event.preventDefault(); }
    return;
  }
  const links = [...document.querySelectorAll("main a")].filter((a) => a.offsetParent);
  const move = (by) => {
    const at = links.indexOf(document.activeElement);
    const next = links[at === -1 ? 0 : Math.max(0, Math.min(links.length - 1, at + by))];
    if (next) next.focus();
  };
  if (event.key === "g") goes = true;
  else if (event.key === "/") { const field = document.querySelector("main input"); if (field) { field.focus(); event.preventDefault(); } }
  else if (event.key === "j") move(1);
  else if (event.key === "k") move(-1);
  else if (event.key === "?") help();
});

function help() {
  const dialog = $("help");
  const letters = allowedPages().map(([, name, , letter]) => el("tr", {}, el("td", {}, el("kbd", {}, `g ${letter}`)), el("td", {}, t(name))));
  const text = "/  search; g then a letter: go to a page; j, k: move through a list; Enter: open; ?: this help; Esc: leave a field";
  const close = el("button", { type: "button", onclick: () => dialog.close() }, t("Close"));
  dialog.replaceChildren(el("p", {}, t(text)), el("table", {}, ...letters), close);
  dialog.showModal();
}

$("keys").addEventListener("click", help);
window.addEventListener("hashchange", show);
document.documentElement.dataset.theme = localStorage.getItem("theme") || "";
(async () => {
  try { session = await call("api/session"); } catch { session = null; }
  show();
})();
