"use strict";
// The IVR editor: blocks and links of a script drawn and edited, and the script gone through step by step.

const IVR_RU = {
  "Scripts": "Сценарии", "Script": "Сценарий", "New script": "Новый сценарий", "Name": "Имя", "Import": "Импорт", "Export": "Экспорт",
  "Save": "Сохранить", "Validate": "Проверить", "Rename": "Переименовать", "Remove": "Удалить", "Versions": "Версии", "Undo": "Отменить", "Redo": "Вернуть",
  "Step by step": "По шагам", "saved": "сохранено", "the script can run": "сценарий может работать", "not saved yet": "ещё не сохранено",
  "Outcomes": "Исходы", "ends the script": "конец сценария", "Add": "Добавить", "Phrases": "Фразы", "Recognised phrases": "Редактор распознаваемых фраз",
  "one phrase a line": "по одной фразе в строке", "Description": "Описание", "Choose a block, or add one": "Выберите блок или добавьте новый",
  "Begin again": "Начать сначала", "Take back": "Взять назад", "Variables": "Переменные", "It is over.": "Сценарий завершён.", "Script settings": "Настройки сценария",
  "prompt is over": "подсказка прозвучала", "caller speaks": "абонент говорит", "time passes": "время вышло", "nothing understood": "не распознано",
  "hangs up": "кладёт трубку", "answered": "ответил", "busy": "занято", "no answer": "нет ответа", "error": "ошибка", "request succeeded": "запрос выполнен",
  "request failed": "запрос не выполнен", "kept": "записано", "nothing was said": "ничего не сказано", "silence": "тишина", "queue is full": "очередь заполнена",
  "said": "сказано", "number": "номер", "attendant answers": "ответ автосекретаря", "phrase": "фраза", "Record": "Записать", "Send": "Отправить", "sound file": "файл WAV",
  "no messages": "нет сообщений", "two messages": "два сообщения", "somebody is free": "освободился", "waits for": "ждёт", "Discard changes?": "Отбросить изменения?",
};

// Outcomes of a block: those it must have, those it may have.
const outcomesOf = {
  ivr: (p) => [[...list(p.ivr).map((r) => String(r.code ?? "")).filter(Boolean), "No Match"], p.grammar ? ["Extension", "Recognized"] : ["Extension"]],
  condition: (p) => [[...list(p.conditions).map((c) => String(c.code)), "False"], []],
  digitmap: (p) => [[...list(p.masks).map((c) => String(c.code)), "No Match"], []],
  time: (p) => [[...list(p.slots).map((c) => String(c.code)), "False"], []],
  dial: () => [[], ["Busy/No answer", "Error"]],
  goto: () => [["Exit"], ["Goto"]],
  rpc: (p) => [list(p.rpc_comm).map((o) => String(o.name ?? o)), ["Error"]],
  record: () => [["next"], ["Empty", "Error"]],
  voicemail: (p) => [["next"], p.mode === "listen" ? ["Empty", "Error"] : ["Empty", "Full", "Error"]],
  queue: () => [["FULL", "ERROR"], ["OK"]],
};
const list = (v) => Array.isArray(v) ? v : [];
const outcomes = (block) => (outcomesOf[block.name] || (() => [["next"], []]))(block.params || {});

// Fields of each block: name, kind, and what the kind needs.
const FIELDS = {
  begin: [],
  ivr: [["play", "prompts"], ["ivr", "choices"], ["asr_service", "text"], ["grammar", "text"], ["wait_time", "number"], ["playback_interruption", "bool"],
    ["extension_dialing", "bool"], ["direct_call_to_extension", "bool"], ["max_digits", "number"], ["interdigit_timeout", "number"]],
  condition: [["conditions", "rows", ["code", "condition"]]],
  set: [["variables", "rows", ["key", "value"]]],
  dial: [["numbers", "text"], ["noanswer_timeout", "number"]],
  goto: [["goto", "block"], ["max_hops", "number"]],
  play: [["play", "prompts"], ["replay", "number"]],
  say: [["text", "text"]],
  rpc: [["method", "select", ["GET", "HEAD", "POST", "PUT", "DELETE"]], ["url", "text"], ["request_timeout", "number"], ["headers", "rows", ["key", "value"]],
    ["max_bytes", "number"], ["rpc_comm", "lines"]],
  digitmap: [["variable", "text"], ["masks", "rows", ["code", "mask"]]],
  time: [["slots", "rows", ["code", "days", "from", "to"]]],
  info: [["text", "text"]],
  record: [["play", "prompts"], ["variable", "text"], ["max_time", "number"], ["silence_time", "number"], ["stop_keys", "text"]],
  voicemail: [["mode", "select", ["leave", "listen"]], ["mailbox", "text"], ["play", "prompts"], ["max_time", "number"], ["silence_time", "number"], ["stop_keys", "text"]],
  queue: [["numbers", "lines"], ["queue", "text"], ["play", "prompts"], ["max_calls", "number"], ["max_wait", "number"], ["noanswer_timeout", "number"], ["attempts", "number"]],
};
const FRESH = {
  ivr: { play: [], ivr: [], wait_time: 8, playback_interruption: true }, condition: { conditions: [] }, set: { variables: [] },
  dial: { numbers: "", noanswer_timeout: 55 }, goto: { goto: "", max_hops: 1 }, play: { play: [], replay: 1 }, say: { text: "" },
  rpc: { type: "HTTP", method: "GET", url: "", headers: [], rpc_comm: [] }, digitmap: { variable: "EXTENSION", masks: [] }, time: { slots: [] }, info: { text: "" },
  record: { play: [], max_time: 60 }, voicemail: { mode: "leave", mailbox: "%CDPN%", play: [] }, queue: { numbers: [], play: [] },
};

async function pageIvr() {
  const domains = (await data("domain/list")).map((d) => d.domain);
  const parts = await Promise.all(domains.map(async (domain) => {
    const rows = await data(`domain/${domain}/ivr/script/list`).catch(() => []);
    const open = (id) => "#" + encodeURIComponent(`script|${domain}|${id}`);
    const name = el("input", { placeholder: t("Name"), "aria-label": t("Name"), required: true, pattern: "[\\p{L}\\p{N}._\\-]{1,64}" });
    const problem = el("p", { class: "error", role: "alert" });
    const fresh = async (event) => {
      event.preventDefault();
      const script = { name: name.value, description: "", actions: { begin_1: { name: "begin", params: {}, pos: { x: 2, y: 0 }, cases: { next: "undefined" } } }, settings: { speech: {} } };
      try {
        if (await importScript(domain, name.value, script)) location.hash = open(name.value);
      } catch (e) { problem.textContent = e.message; }
    };
    return el("section", {}, el("h3", {}, domain), table(rows, { script: (r) => open(r.script) }),
      el("form", { class: "row", onsubmit: fresh }, name, el("button", {}, t("New script"))), problem);
  }));
  return el("div", {}, ...parts);
}

async function importScript(domain, id, script) {
  const answer = await run(`domain/${domain}/ivr/script/.import --id ${id} --json ${JSON.stringify(script)}`);
  if (answer && answer.status !== 0) throw new Error(complaint(answer.text));
  return answer;
}

// What went wrong, without the words around it.
const complaint = (text) => text.replace(/^Command error: /, "").replace(/\n\n\[exec at: [^\]]*\]\s*$/, "").trim();

// Where a block stands: the original's grid.
const at = (pos) => ({ x: 90 + 180 * (pos?.x ?? 0), y: 50 + 150 * (pos?.y ?? 0) });
const HALF = { w: 78, h: 24 };

async function pageScript(domain, id) {
  let script = await data(`domain/${domain}/ivr/script/export ${id}`);
  let chosen = null;
  let dirty = false;
  const past = [];
  const future = [];
  const told = el("p", { id: "told", role: "status" });
  const canvas = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  canvas.setAttribute("class", "ivr");
  const panel = el("section", { class: "panel", id: "panel" });
  const rehearsal = el("section", { class: "panel", id: "rehearsal", hidden: true });
  const say = (text, bad) => { told.textContent = text; told.className = bad ? "error" : ""; };
  const svg = (name, attributes = {}, text) => {
    const e = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [k, v] of Object.entries(attributes)) if (v !== null && v !== undefined) e.setAttribute(k, v);
    if (text !== undefined) e.textContent = text;
    return e;
  };

  // Every change goes through here: it can be taken back.
  const change = (act, redraw = true) => {
    past.push(JSON.stringify(script));
    if (past.length > 200) past.shift();
    future.length = 0;
    act();
    touched(redraw);
  };
  const touched = (redraw) => {
    dirty = true;
    for (const block of Object.values(script.actions)) settle(block);
    draw();
    if (redraw) show_panel();
    say(t("not saved yet"));
  };
  const step_history = (from, to) => {
    if (!from.length) return;
    to.push(JSON.stringify(script));
    script = JSON.parse(from.pop());
    if (chosen && !script.actions[chosen]) chosen = null;
    dirty = true;
    draw();
    show_panel();
  };

  // Outcomes that a block no longer has go, those it must have lead somewhere.
  const settle = (block) => {
    const [must, may] = outcomes(block);
    block.cases = block.cases || {};
    for (const name of Object.keys(block.cases)) if (!must.includes(name) && !may.includes(name)) {
      delete block.cases[name];
      if (block.links) delete block.links[name];
    }
    for (const name of must) if (!(name in block.cases)) block.cases[name] = "undefined";
  };

  // Links as the original draws them: three points, from a block's lower edge to the next one's upper.
  const relink = (id) => {
    for (const [from, block] of Object.entries(script.actions)) {
      for (const [name, to] of Object.entries(block.cases || {})) {
        if ((from !== id && to !== id) || !script.actions[to]) continue;
        const [a, b] = [at(block.pos), at(script.actions[to].pos)];
        const [ay, by] = [a.y + 20, b.y - 20];
        block.links = block.links || {};
        block.links[name] = { ...block.links[name], points: [{ cx: a.x, cy: ay }, { cx: (a.x + b.x) / 2, cy: (ay + by) / 2 }, { cx: b.x, cy: by }] };
      }
    }
  };

  const draw = () => {
    const blocks = Object.entries(script.actions);
    const places = blocks.map(([, b]) => at(b.pos));
    const width = Math.max(400, ...places.map((p) => p.x + 120));
    const height = Math.max(300, ...places.map((p) => p.y + 90));
    canvas.setAttribute("viewBox", `0 0 ${width} ${height}`);
    canvas.setAttribute("width", width);
    canvas.setAttribute("height", height);
    canvas.replaceChildren();
    const arrow = svg("marker", { id: "tip", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, orient: "auto" });
    arrow.append(svg("path", { d: "M0 0L8 4L0 8z", class: "tip" }));
    canvas.append(arrow);
    for (const [from, block] of blocks) {
      const named = Object.entries(block.cases || {}).filter(([, to]) => script.actions[to]);
      named.forEach(([name, to], n) => {
        const [a, b] = [at(block.pos), at(script.actions[to].pos)];
        const x = a.x + (n - (named.length - 1) / 2) * (2 * HALF.w / Math.max(named.length, 2)) * 0.7;
        const down = b.y > a.y;
        const [y1, y2] = [a.y + HALF.h, down ? b.y - HALF.h : b.y + HALF.h];
        const side = down ? 0 : (b.x >= a.x ? 110 : -110);
        const bend = down ? Math.max(20, (y2 - y1) / 2) : 45;
        const d = `M${x} ${y1}C${x + side} ${y1 + bend} ${b.x + side} ${down ? y2 - bend : y2 + bend} ${b.x} ${y2}`;
        canvas.append(svg("path", { d, class: "link", "marker-end": "url(#tip)", "data-link": `${from}|${name}` }));
        canvas.append(svg("text", { x: x + 4, y: y1 + 14, class: "outcome" }, name));
      });
      if (block.name === "goto" && script.actions[block.params?.goto]) {
        const [a, b] = [at(block.pos), at(script.actions[block.params.goto].pos)];
        canvas.append(svg("path", { d: `M${a.x - HALF.w} ${a.y}C${a.x - 140} ${a.y} ${b.x - 140} ${b.y} ${b.x - HALF.w} ${b.y}`, class: "link jump", "marker-end": "url(#tip)" }));
      }
    }
    for (const [id, block] of blocks) {
      const place = at(block.pos);
      const now = steps.length && !rehearsal.hidden && steps[steps.length - 1].block === id;
      const g = svg("g", { class: `block${id === chosen ? " chosen" : ""}${now ? " now" : ""}`, transform: `translate(${place.x} ${place.y})`, tabindex: 0, role: "button", "data-block": id, "aria-label": `${block.name} ${id}` });
      g.append(svg("rect", { x: -HALF.w, y: -HALF.h, width: 2 * HALF.w, height: 2 * HALF.h, rx: 8 }));
      g.append(svg("text", { y: -4, class: "kind" }, block.name), svg("text", { y: 13, class: "id" }, block.params?.description || id));
      g.append(svg("circle", { cy: HALF.h, r: 6, class: "port", "data-port": id }));
      canvas.append(g);
    }
  };

  // Dragging a block moves it, dragging its port links it.
  const point = (event) => {
    const box = canvas.getBoundingClientRect();
    return { x: (event.clientX - box.left) * canvas.viewBox.baseVal.width / box.width, y: (event.clientY - box.top) * canvas.viewBox.baseVal.height / box.height };
  };
  const block_at = (p) => Object.entries(script.actions).find(([, b]) => {
    const place = at(b.pos);
    return Math.abs(p.x - place.x) <= HALF.w && Math.abs(p.y - place.y) <= HALF.h;
  });
  canvas.addEventListener("pointerdown", (event) => {
    const g = event.target.closest("[data-block]");
    if (!g) { choose(null); return; }
    event.preventDefault();
    const id = g.dataset.block;
    choose(id);
    const port = event.target.dataset.port;
    const begin = point(event);
    const before = { ...(script.actions[id].pos || { x: 0, y: 0 }) };
    const saved = JSON.stringify(script);
    let moved = false;
    let line = null;
    const move = (e) => {
      const p = point(e);
      if (port) {
        if (!line) { line = svg("path", { class: "link new" }); canvas.append(line); }
        const place = at(before);
        line.setAttribute("d", `M${place.x} ${place.y + HALF.h}L${p.x} ${p.y}`);
        return;
      }
      const to = { x: Math.max(0, Math.round(before.x + (p.x - begin.x) / 180)), y: Math.max(0, Math.round(before.y + (p.y - begin.y) / 150)) };
      if (to.x === script.actions[id].pos?.x && to.y === script.actions[id].pos?.y) return;
      if (block_on(to, id)) return;
      moved = true;
      script.actions[id].pos = to;
      relink(id);
      draw();
    };
    const up = (e) => {
      window.removeEventListener("pointermove", move);
      window.removeEventListener("pointerup", up);
      if (moved) { past.push(saved); future.length = 0; touched(false); }
      if (port) {
        const target = block_at(point(e));
        if (target && target[0] !== id) link(id, target[0]); else draw();
      }
    };
    window.addEventListener("pointermove", move);
    window.addEventListener("pointerup", up);
  });
  canvas.addEventListener("keydown", (event) => {
    const g = event.target.closest("[data-block]");
    if (!g) return;
    const id = g.dataset.block;
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(id); }
    if (event.key === "Delete") remove(id);
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (by) {
      event.preventDefault();
      const pos = script.actions[id].pos || { x: 0, y: 0 };
      const to = { x: Math.max(0, pos.x + by[0]), y: Math.max(0, pos.y + by[1]) };
      if (!block_on(to, id)) change(() => { script.actions[id].pos = to; relink(id); });
      canvas.querySelector(`[data-block="${CSS.escape(id)}"]`)?.focus();
    }
  });
  const block_on = (pos, but) => Object.entries(script.actions).some(([id, b]) => id !== but && (b.pos?.x ?? 0) === pos.x && (b.pos?.y ?? 0) === pos.y);

  const choose = (id) => { if (chosen !== id) { chosen = id; draw(); show_panel(); } };

  // The first outcome that leads nowhere leads there now.
  const link = (from, to) => change(() => {
    const block = script.actions[from];
    const [must, may] = outcomes(block);
    const open = [...must, ...may].find((o) => !script.actions[block.cases[o]]) ?? must[0] ?? may[0];
    block.cases[open] = to;
    relink(from);
  });

  const add = (name) => change(() => {
    let n = Object.keys(script.actions).length + 1;
    while (script.actions[`${name}_${n}`]) n += 1;
    const near = chosen ? script.actions[chosen].pos : { x: 2, y: 0 };
    const pos = { x: near?.x ?? 2, y: (near?.y ?? 0) + 1 };
    while (block_on(pos)) pos.x += 1;
    const fresh = { name, params: { description: "", ...JSON.parse(JSON.stringify(FRESH[name] || {})) }, pos, cases: {} };
    settle(fresh);
    script.actions[`${name}_${n}`] = fresh;
    chosen = `${name}_${n}`;
  });

  const remove = (id) => {
    if (script.actions[id].name === "begin") { say("begin", true); return; }
    change(() => {
      delete script.actions[id];
      for (const block of Object.values(script.actions)) for (const [o, to] of Object.entries(block.cases || {})) if (to === id) {
        block.cases[o] = "undefined";
        if (block.links) delete block.links[o];
      }
      if (chosen === id) chosen = null;
    });
  };

  // ---- the panel: fields and outcomes of the chosen block, or the script's own settings

  const input = (attributes, set) => el("input", { ...attributes, onchange: (e) => change(() => set(e.target.value), false) });
  const select = (label, values, now, set) => el("select", { "aria-label": label, onchange: (e) => change(() => set(e.target.value)) },
    ...values.map(([v, text]) => el("option", { value: v, selected: v === now }, text)));
  const small = (text, act, label) => el("button", { type: "button", class: "small", "aria-label": label || text, onclick: act }, text);

  // A list as a table: a row's own cells, and ways to remove it and to add a fresh one.
  const list_field = (p, name, head, cells, fresh) => {
    const rows = list(p[name]);
    const gone = (n) => small("×", () => change(() => { rows.splice(n, 1); }), `${t("Remove")} ${name} ${n}`);
    const more = small(t("Add"), () => change(() => { p[name] = [...rows, fresh(rows.length)]; }), `${t("Add")} ${name}`);
    return el("table", {}, head.length ? el("thead", {}, el("tr", {}, ...head.map((h) => el("th", {}, h)), el("th"))) : null,
      el("tbody", {}, ...rows.map((row, n) => el("tr", {}, ...[...cells(row, n), gone(n)].map((c) => el("td", {}, c)))), el("tr", {}, el("td", {}, more))));
  };
  const rows_field = (p, name, columns) => list_field(p, name, columns,
    (row, n) => columns.map((c) => input({ value: row[c] ?? "", "aria-label": `${name} ${n} ${c}` }, (v) => { row[c] = v; })),
    (count) => Object.fromEntries(columns.map((c) => [c, c === "code" ? String(count) : ""])));
  const prompts_field = (p, name) => list_field(p, name, [],
    (row, n) => [select(`${name} ${n} type`, [["speech", "speech"], ["file", "file"]], row.type, (v) => { row.type = v; }),
      input({ value: row.name ?? "", size: 30, "aria-label": `${name} ${n}` }, (v) => { row.name = v; })],
    () => ({ type: "speech", name: "", tts: {}, location: "", group: "", variable_type: "" }));
  const choices_field = (p, name) => list_field(p, name, ["code", t("Description"), t("Phrases")],
    (row, n) => [input({ value: row.code ?? "", size: 3, "aria-label": `${name} ${n} code` }, (v) => { rename_outcome(p, row, v); }),
      input({ value: row.description ?? "", "aria-label": `${name} ${n} description` }, (v) => { row.description = v; }),
      el("button", { type: "button", class: "small phrases", "data-phrases": n, onclick: () => phrases_dialogue(row), ondblclick: () => phrases_dialogue(row) },
        list(row.phrases).join(", ") || t("Add") + "…")],
    (count) => ({ code: String(count + 1), description: "", phrases: [] }));
  // A key that is renamed keeps its way.
  const rename_outcome = (p, row, code) => {
    const block = Object.values(script.actions).find((b) => b.params === p);
    if (block && block.cases[row.code] !== undefined && code && block.cases[code] === undefined) block.cases[code] = block.cases[row.code];
    row.code = code;
  };

  const phrases_dialogue = (row) => {
    const dialog = $("help");
    if (dialog.open) return;
    const text = el("textarea", { rows: 8, cols: 40, id: "phrases", "aria-label": t("one phrase a line") });
    text.value = list(row.phrases).join("\n");
    const ok = () => {
      dialog.close();
      change(() => { row.phrases = text.value.split("\n").map((p) => p.trim()).filter(Boolean); });
    };
    dialog.replaceChildren(el("h3", {}, t("Recognised phrases")), el("p", { class: "dim" }, t("one phrase a line")), text,
      el("p", {}, el("button", { type: "button", id: "phrases-save", onclick: ok }, t("Save")), " ", el("button", { type: "button", onclick: () => dialog.close() }, t("Close"))));
    dialog.showModal();
    text.focus();
  };

  const field = (block, [name, kind, more]) => {
    const p = block.params;
    const label = (control) => el("label", { class: "field" }, el("span", {}, name), control);
    const attributes = { value: p[name] ?? "", "aria-label": name, "data-field": name };
    if (kind === "text") return label(input({ ...attributes, size: 30 }, (v) => { p[name] = v; }));
    // What came as a text stays one: the original writes some numbers so.
    if (kind === "number") return label(input({ ...attributes, type: "number", min: 0 }, (v) => { p[name] = typeof p[name] === "string" || v === "" ? v : Number(v); }));
    if (kind === "bool") return label(el("input", { type: "checkbox", checked: String(p[name]) === "true", "data-field": name, onchange: (e) => change(() => { p[name] = e.target.checked; }, false) }));
    if (kind === "select") return label(select(name, more.map((m) => [m, m]), String(p[name] ?? more[0]), (v) => { p[name] = v; }));
    if (kind === "block") return label(select(name, [["", ""], ...Object.keys(script.actions).map((id) => [id, id])], p[name] ?? "", (v) => { p[name] = v; }));
    if (kind === "lines") {
      const lines = Array.isArray(p[name]) ? p[name].map((v) => v?.name ?? v).join("\n") : p[name] ?? "";
      const area = el("textarea", { rows: 3, cols: 30, "data-field": name, onchange: (e) => change(() => { p[name] = e.target.value.split("\n").map((l) => l.trim()).filter(Boolean); }) });
      area.value = lines;
      return label(area);
    }
    const inner = kind === "rows" ? rows_field(p, name, more) : kind === "prompts" ? prompts_field(p, name) : choices_field(p, name);
    return el("fieldset", {}, el("legend", {}, name), inner);
  };

  const show_panel = () => {
    if (!chosen || !script.actions[chosen]) {
      const speech = (script.settings = script.settings || {}, script.settings.speech = script.settings.speech || {});
      const setting = (name) => el("label", { class: "field" }, el("span", {}, name), input({ value: speech[name] ?? "", "aria-label": name }, (v) => { speech[name] = v; }));
      panel.replaceChildren(el("p", { class: "dim" }, t("Choose a block, or add one")), el("h3", {}, t("Script settings")),
        el("label", { class: "field" }, el("span", {}, t("Description")), input({ value: script.description ?? "", size: 30 }, (v) => { script.description = v; })), setting("voice"), setting("speed"));
      return;
    }
    const block = script.actions[chosen];
    block.params = block.params || {};
    const [must, may] = outcomes(block);
    const targets = [["undefined", t("ends the script")], ...Object.keys(script.actions).filter((id) => id !== chosen).map((id) => [id, id])];
    const outcome = (name, needed) => el("label", { class: "field" }, el("span", {}, name),
      select(`outcome ${name}`, needed ? targets : [["", "–"], ...targets], block.cases[name] ?? (needed ? "undefined" : ""), (v) => {
        if (v === "") delete block.cases[name]; else block.cases[name] = v;
        if (block.links && !script.actions[v]) delete block.links[name];
        relink(chosen);
      }));
    panel.replaceChildren(el("h3", {}, `${block.name} `, el("span", { class: "dim" }, chosen)),
      el("label", { class: "field" }, el("span", {}, t("Description")), input({ value: block.params.description ?? "", size: 30 }, (v) => { block.params.description = v; })),
      ...(FIELDS[block.name] || []).map((f) => field(block, f)),
      el("fieldset", {}, el("legend", {}, t("Outcomes")), ...must.map((o) => outcome(o, true)), ...may.map((o) => outcome(o, false))),
      block.name === "begin" ? null : el("button", { type: "button", class: "bad", onclick: () => remove(chosen) }, t("Remove")));
  };

  // ---- step by step

  let moves = [];
  let steps = [];
  const presets = {};
  const go = async (...more) => {
    const next = [...moves, ...more];
    try {
      const asked = { script, vars: presets, moves: next };
      const played = await data(`domain/${domain}/ivr/script/rehearse --json ${JSON.stringify(asked)}`);
      moves = next;
      steps = played.steps;
    } catch (e) { say(complaint(e.message), true); }
    draw();
    show_rehearsal();
  };

  const words = (effect) => {
    if (typeof effect === "string") return effect;
    const [name, v] = Object.entries(effect)[0];
    if (name === "play") return `▶ ${v.say ?? v.file}`;
    if (name === "timer") return `⏲ ${v} s`;
    if (name === "note") return `· ${v}`;
    if (name === "dial") return `☎ ${v.number} (${v.patience} s)`;
    if (name === "http") return `${v.method} ${v.url}`;
    return `${name} ${typeof v === "object" ? JSON.stringify(v) : v}`;
  };

  const show_rehearsal = () => {
    const last = steps[steps.length - 1];
    if (!last) { rehearsal.replaceChildren(); return; }
    const kinds = steps.flatMap((s) => s.effects).map((e) => typeof e === "string" ? e : Object.keys(e)[0]);
    const block = script.actions[last.block] || {};
    const button = (text, ...more) => el("button", { type: "button", onclick: () => go(...more) }, t(text));
    const tries = [];
    if (!last.over) {
      tries.push(button("prompt is over", "played"), button("time passes", "due"));
      if (block.name === "ivr" || block.name === "record" || block.name === "voicemail") {
        const keys = el("span", { class: "keys" }, ..."123456789*0#".split("").map((k) => el("button", { type: "button", class: "small", "data-key": k, onclick: () => go({ key: k }) }, k)));
        tries.push(keys, button("caller speaks", "speaks"));
      }
      if (block.name === "ivr") {
        const said = el("input", { placeholder: t("said"), "aria-label": t("said"), size: 16 });
        const number = el("input", { placeholder: t("number"), "aria-label": t("number"), size: 6 });
        const answer = (e) => { e.preventDefault(); go("speaks", { answered: { recognized: said.value, number: number.value || null } }); };
        const phrase = el("input", { placeholder: t("phrase"), "aria-label": t("phrase"), size: 16 });
        const speak = (e) => { e.preventDefault(); go("speaks", { phrase: phrase.value }); };
        tries.push(button("nothing understood", "unheard"), el("form", { class: "row", onsubmit: speak }, phrase, el("button", { id: "say-phrase" }, t("phrase"))),
          block.params?.asr_service ? el("form", { class: "row", onsubmit: answer }, said, number, el("button", {}, t("attendant answers"))) : null, sound_form(last.block));
      }
      if (block.name === "dial" || block.name === "queue" || kinds.includes("dial")) {
        tries.push(button("answered", "connected"), button("busy", { failed: "busy" }), button("no answer", { failed: "no_answer" }), button("error", { failed: "error" }));
      }
      if (block.name === "rpc") tries.push(button("request succeeded", { http: { ok: true, body: list(block.params?.rpc_comm)[0]?.name ?? list(block.params?.rpc_comm)[0] ?? "" } }), button("request failed", { http: { ok: false } }));
      if (block.name === "record" || block.name === "voicemail") tries.push(button("silence", "silent"), button("kept", { recorded: 5 }), button("nothing was said", { recorded: 0 }));
      if (block.name === "voicemail" && block.params?.mode === "listen") tries.push(button("no messages", { mail: [] }), button("two messages", { mail: [1, 2] }));
      if (block.name === "queue") tries.push(button("queue is full", "queue_full"), button("somebody is free", { queue_turn: String(list(block.params?.numbers)[0] ?? block.params?.numbers ?? "") }));
      tries.push(button("hangs up", "hangup"));
    }
    const before = steps.length > 1 ? steps[steps.length - 2].vars : {};
    const variables = Object.entries(last.vars).map(([n, v]) => el("tr", { class: before[n] !== v ? "fresh" : null }, el("th", { scope: "row" }, n), el("td", {}, v)));
    const log = steps.map((s) => el("li", {}, s.move ? el("strong", {}, typeof s.move === "string" ? s.move : JSON.stringify(s.move)) : null,
      el("ul", {}, ...s.effects.map((e) => el("li", {}, words(e))))));
    const preset = el("input", { placeholder: "NAME=VALUE", "aria-label": "NAME=VALUE", size: 20 });
    const set = (e) => {
      e.preventDefault();
      const [, name, value] = preset.value.match(/^\s*([^=\s]+)\s*=(.*)$/) || [];
      if (name) { presets[name] = value; moves = []; go(); }
    };
    rehearsal.replaceChildren(el("h3", {}, t("Step by step"), " ", el("span", { class: "dim", id: "now" }, last.block)),
      el("div", { class: "row" }, el("button", { type: "button", onclick: () => { moves = []; go(); } }, t("Begin again")),
        el("button", { type: "button", disabled: moves.length === 0, onclick: () => { moves.pop(); go(); } }, t("Take back"))),
      last.over ? el("p", {}, t("It is over.")) : el("div", { class: "tries" }, ...tries.filter(Boolean)),
      el("h4", {}, t("Variables")), el("table", { id: "vars" }, ...variables), el("form", { class: "row", onsubmit: set }, preset, el("button", {}, t("Add"))),
      el("ol", { class: "log" }, ...log));
    const shown_log = rehearsal.querySelector(".log");
    shown_log.scrollTop = shown_log.scrollHeight;
  };

  // Something really said: a WAV file, or the microphone where the browser gives it (https or localhost).
  const sound_form = (block) => {
    const heard = async (bytes) => {
      try {
        let text = "";
        for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
        const asked = { script, block, sound: btoa(text) };
        const move = await data(`domain/${domain}/ivr/script/hear --json ${JSON.stringify(asked)}`);
        await go("speaks", move);
      } catch (e) { say(complaint(e.message), true); }
    };
    const file = el("input", { type: "file", accept: "audio/wav", "aria-label": t("sound file"), onchange: async (e) => { const f = e.target.files[0]; if (f) heard(new Uint8Array(await f.arrayBuffer())); } });
    const record = el("button", { type: "button", onclick: () => microphone(record).then(heard).catch((e) => say(e.message, true)) }, t("Record"));
    return el("div", { class: "row" }, el("label", {}, t("sound file"), " ", file), navigator.mediaDevices ? record : null);
  };

  // ---- the whole

  const save = async () => {
    try {
      if (await importScript(domain, id, script)) { dirty = false; say(t("saved")); await show_versions(); }
    } catch (e) { blame(e.message); }
  };
  const validate = async () => {
    const answer = await run(`domain/${domain}/ivr/script/validate --json ${JSON.stringify(script)}`);
    if (answer.status === 0) say(t("the script can run")); else blame(complaint(answer.text));
  };
  // A complaint names its block: it is chosen.
  const blame = (text) => {
    const block = (text.match(/^block ([^,]+),/) || [])[1];
    if (block && script.actions[block]) choose(block);
    say(text, true);
  };
  const download = () => {
    const link = el("a", { href: "data:application/json;charset=utf-8," + encodeURIComponent(JSON.stringify(script, null, 2)), download: `${id}.json` });
    link.click();
  };
  const upload = el("input", { type: "file", accept: "application/json,.json", id: "import", hidden: true, onchange: async (e) => {
    const f = e.target.files[0];
    if (!f) return;
    try {
      const read = JSON.parse(await f.text());
      if (!read || typeof read.actions !== "object") throw new Error("actions");
      change(() => { script = read; chosen = null; });
    } catch (problem) { say(problem.message, true); }
    e.target.value = "";
  } });
  const rename = async () => {
    const to = prompt(t("Name"), id);
    if (!to || to === id || (dirty && !await ask(t("Discard changes?")))) return;
    try { await data(`domain/${domain}/ivr/script/rename ${id} ${to}`); location.hash = encodeURIComponent(`script|${domain}|${to}`); } catch (e) { say(complaint(e.message), true); }
  };
  const remove_script = async () => {
    const answer = await run(`domain/${domain}/ivr/script/remove ${id}`);
    if (answer && answer.status === 0) location.hash = "ivr"; else if (answer) say(complaint(answer.text), true);
  };
  const versions = el("select", { "aria-label": t("Versions"), id: "versions", onchange: async (e) => {
    if (!e.target.value) return;
    const old = await data(`domain/${domain}/ivr/script/export ${id} --version ${e.target.value}`);
    change(() => { script = old; chosen = null; });
    e.target.value = "";
  } });
  const show_versions = async () => {
    const rows = await data(`domain/${domain}/ivr/script/versions ${id}`);
    versions.replaceChildren(el("option", { value: "" }, t("Versions")), ...rows.map((r) => el("option", { value: r.version }, `${r.version} · ${r.since ? when(r.since) : ""} · ${r.who}`)));
  };
  const toggle = () => {
    rehearsal.hidden = !rehearsal.hidden;
    if (rehearsal.hidden) draw(); else { moves = []; go(); }
  };
  const button = (name, act, more = {}) => el("button", { type: "button", onclick: act, ...more }, t(name));
  const bar = el("div", { class: "row bar" }, el("a", { href: "#ivr" }, t("Scripts")), el("strong", {}, `${domain} / ${id}`),
    button("Save", save, { id: "save" }), button("Validate", validate, { id: "validate" }), button("Undo", () => step_history(past, future)), button("Redo", () => step_history(future, past)),
    button("Export", download), button("Import", () => upload.click()), upload, button("Rename", rename), versions, button("Step by step", toggle, { id: "steps" }),
    button("Remove", remove_script, { class: "bad" }));
  const palette = el("div", { class: "row palette" }, ...Object.keys(FRESH).map((name) => el("button", { type: "button", class: "small", "data-add": name, onclick: () => add(name) }, `+ ${name}`)));
  for (const block of Object.values(script.actions)) settle(block);
  await show_versions();
  draw();
  show_panel();
  const page = el("div", { class: "editor" }, bar, palette, told, el("div", { class: "work" }, el("div", { class: "scroll canvas" }, canvas), panel, rehearsal));
  page.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || ["INPUT", "TEXTAREA"].includes(event.target.tagName)) return;
    if (event.key === "z") { event.preventDefault(); step_history(past, future); }
    if (event.key === "y") { event.preventDefault(); step_history(future, past); }
    if (event.key === "s") { event.preventDefault(); save(); }
  });
  window.onbeforeunload = (event) => { if (dirty && document.contains(page)) event.preventDefault(); };
  return page;
}

// Records until the button is pressed again, 10 s at most; WAV of 16 bits.
async function microphone(button) {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  const context = new AudioContext({ sampleRate: 16000 });
  const source = context.createMediaStreamSource(stream);
  const node = context.createScriptProcessor(4096, 1, 1);
  const pieces = [];
  node.onaudioprocess = (e) => pieces.push(new Float32Array(e.inputBuffer.getChannelData(0)));
  source.connect(node);
  node.connect(context.destination);
  button.classList.add("bad");
  await new Promise((over) => { button.addEventListener("click", over, { once: true }); setTimeout(over, 10000); });
  button.classList.remove("bad");
  stream.getTracks().forEach((track) => track.stop());
  const rate = context.sampleRate;
  await context.close();
  const samples = pieces.reduce((n, p) => n + p.length, 0);
  const view = new DataView(new ArrayBuffer(44 + 2 * samples));
  const text = (at, s) => [...s].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF"); view.setUint32(4, 36 + 2 * samples, true); text(8, "WAVEfmt "); view.setUint32(16, 16, true); view.setUint16(20, 1, true);
  view.setUint16(22, 1, true); view.setUint32(24, rate, true); view.setUint32(28, 2 * rate, true); view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  text(36, "data"); view.setUint32(40, 2 * samples, true);
  let at = 44;
  for (const piece of pieces) for (const v of piece) { view.setInt16(at, Math.max(-1, Math.min(1, v)) * 32767, true); at += 2; }
  return new Uint8Array(view.buffer);
}
