"use strict";
// Pages of a mediator of interception: the four tabs of its settings, the monitor of its streams, and how it is.

const MEDIATOR_RU = {
  "State": "Состояние", "Streams": "Потоки E1", "Monitor": "Мониторинг E1", "Network": "Сетевые интерфейсы", "Changes": "Изменения",
  "Save": "Сохранить", "Saved": "Сохранено", "Nothing was changed": "Ничего не изменено", "Reset": "Сбросить", "Approve": "Подтвердить",
  "Reject": "Отклонить", "Stream number": "Поток", "is set": "задан", "none is set": "не задан", "What": "Что", "Forget the station's keys": "Забыть ключи станций",
  "server": "IP-адрес сервера", "reserve_server": "Резервный IP-адрес", "ssh_port": "Порт", "user": "Имя пользователя", "password": "Пароль",
  "timeout": "Тайм-аут, с", "digit_zero": "Передача цифры 0", "node": "Тип подключенной станции (АТС)", "link": "Тип линка",
  "listen_address": "Адрес для подключения ПУ по TCP", "tcp_port1": "TCP порт 1 для передачи данных", "tcp_port2": "TCP порт 2 для передачи данных",
  "control_point": "Адрес пульта управления", "rtp_address": "Сетевой интерфейс для RTP", "rtp_port": "Первый порт RTP",
  "extended_codes": "Расширенные коды ошибок", "cdpn_add_8": "Добавление цифры 8 в начало CdPN", "exit_8_to_7": "Замена кода выхода на МГ с 8 на 7",
  "exit_88_to_7": "Замена кода выхода на МГ с 88 на 7", "cdpn_add_810": "Добавление цифр 810 в начало CdPN",
  "radius_address": "IP-адрес сервера", "radius_port": "Порт", "secret": "Секретный ключ", "autonomous": "Автономный режим",
  "circuit": "Виртуальный канал X.25", "logical_channel": "Номер логического канала", "slot1": "КИ для КПД1", "slot2": "КИ для КПД2",
  "handover": "Адрес агентства", "handover_name": "Имя в сертификате агентства", "handover_ca": "Файл сертификата УЦ", "handover_certificate": "Файл нашего сертификата",
  "handover_key": "Файл нашего ключа", "keep_alive": "Период keep-alive, с", "liid_prefix": "Префикс LIID", "country": "Страна", "operator": "Оператор", "network_element": "Сетевой элемент",
  "enabled": "Включен", "mode": "Режим", "local": "Наш адрес", "peer": "Адрес другой стороны", "state": "состояние",
  "data channel 1": "КПД1", "data channel 2": "КПД2", "seconds counted": "Время сбора статистики (с)", "positive slips": "Положительных сбоев",
  "negative slips": "Отрицательных сбоев", "bytes received": "Принято байт", "bytes sent": "Передано байт", "short packets": "Коротких пакетов",
  "big packets": "Больших пакетов", "overflows": "Переполнений", "CRC errors": "Ошибок CRC", "transmit failures": "Сбоев передачи",
  "code violations": "Code violation counter", "CRC-4 errors": "CRC Error Counter", "bit errors": "Bit error rate",
};

// A field for a setting, after what it may be: `true|false`, `a|b`, `SECRET`, or text.
function settingField(name, value, mayBe) {
  const about = { name, "aria-label": t(name), id: `set-${name}` };
  if (mayBe === "true|false") return el("input", { ...about, type: "checkbox", checked: value === "true" });
  if (mayBe === "SECRET") {
    return el("input", { ...about, type: "password", autocomplete: "new-password", placeholder: t(value ? "is set" : "none is set") });
  }
  if (mayBe.includes("|")) return el("select", about, ...mayBe.split("|").map((v) => el("option", { selected: v === value }, v)));
  return el("input", { ...about, value, placeholder: mayBe, size: 24 });
}

const fieldValue = (field) => field.type === "checkbox" ? String(field.checked) : field.value.trim();

// A form of rows { property, value, may_be }; what was changed is set, one after another, by the line of `command`.
function settingsForm(rows, command) {
  const told = el("p", { role: "status", class: "told" });
  const fields = rows.map((r) => ({ ...r, field: settingField(r.property, r.value, r.may_be) }));
  const submit = async (event) => {
    event.preventDefault();
    const changed = fields.filter((f) => f.may_be === "SECRET" ? f.field.value !== "" : fieldValue(f.field) !== f.value);
    const lines = [];
    for (const f of changed) {
      const value = f.may_be === "SECRET" ? f.field.value : fieldValue(f.field);
      try {
        const answer = await run(`${command(f.property)} ${quoted(value)}`);
        if (!answer) continue;
        if (answer.status !== 0) throw new Error(answer.text);
        const waits = answer.data && answer.data.proposal;
        lines.push(`${t(f.property)}: ${waits ? answer.text.trim() : t("Saved")}`);
        if (f.may_be === "SECRET") f.field.value = ""; else if (!waits) f.value = value;
      } catch (e) { lines.push(`${t(f.property)}: ${e.message.trim()}`); told.classList.add("error"); }
    }
    told.textContent = lines.length ? lines.join("\n") : t("Nothing was changed");
  };
  const row = (f) => el("tr", {}, el("th", { scope: "row" }, el("label", { for: `set-${f.property}` }, t(f.property))),
    el("td", {}, f.field), el("td", { class: "dim" }, f.may_be.includes("|") ? "" : f.may_be));
  return el("form", { onsubmit: (e) => { told.classList.remove("error"); submit(e); } },
    el("table", {}, el("tbody", {}, ...fields.map(row))), el("p", {}, el("button", {}, t("Save"))), told);
}

function pageOfTab(title, tab, more) {
  return async () => {
    const rows = await data(`mediator/${tab}/info`);
    return el("div", {}, el("h2", {}, title), settingsForm(rows, (property) => `mediator/${tab}/set ${property}`), more ? await more() : null);
  };
}

async function forgetKeys() {
  const told = el("p", { role: "status" });
  const act = async () => {
    try { told.textContent = ((await run("mediator/ssh/forget-keys")) || { text: "" }).text; } catch (e) { told.textContent = e.message; }
  };
  return el("div", {}, el("button", { type: "button", onclick: act }, t("Forget the station's keys")), told);
}

const pageSsh = pageOfTab("SSH", "ssh", forgetKeys);
const pageSorm = pageOfTab("СОРМ", "sorm");
const pageRadius = pageOfTab("RADIUS", "radius");
const pageEtsi = pageOfTab("ETSI TS 102 232", "etsi");

async function streamForms() {
  const mayBe = { enabled: "true|false", mode: "dte|dce", local: "ADDRESS:PORT", peer: "ADDRESS:PORT" };
  const forms = (await data("mediator/e1/streams")).map((s) => {
    const rows = Object.keys(mayBe).map((property) => ({ property, value: s[property], may_be: mayBe[property] }));
    return el("section", { "data-stream": s.stream }, el("h3", {}, `${t("Stream number")} ${s.stream}`),
      settingsForm(rows, (property) => `mediator/e1/stream ${s.stream} ${property}`));
  });
  return el("div", {}, ...forms);
}

const pageStreams = pageOfTab("E1", "e1", streamForms);

// A column for each stream, a row for each counter; drawn again every second.
async function pageMonitor() {
  const place = el("div", { id: "monitor", class: "scroll" });
  const draw = async () => {
    const rows = await data("mediator/e1/monitor");
    const streams = Object.keys(rows[0]).filter((k) => k !== "stream");
    const good = { WORK: "running", up: "running", OFF: "off", ABSENT: "off", no: "off" };
    const cell = (row, n) => {
      const value = row[n];
      const lamp = /^(state|data channel)/.test(row.stream) ? el("span", { class: `dot ${good[value] || "stopped"}` }) : null;
      return el("td", { "data-counter": row.stream, "data-stream": n }, lamp, value);
    };
    const reset = (n) => el("td", {}, el("button", { type: "button", onclick: () => run(`mediator/e1/reset ${n}`).then(draw) }, t("Reset")));
    place.replaceChildren(el("table", {},
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, t("Stream number")), ...streams.map((n) => el("th", { scope: "col" }, n)))),
      el("tbody", {}, ...rows.map((row) => el("tr", {}, el("th", { scope: "row" }, t(row.stream)), ...streams.map((n) => cell(row, n)))),
        el("tr", {}, el("td"), ...streams.map(reset)))));
  };
  await draw();
  again(draw);
  return el("div", {}, el("h2", {}, t("Monitor")), place);
}

async function pageState() {
  const place = el("div", { id: "mediator-state" });
  const draw = async () => place.replaceChildren(table(await data("mediator/state")));
  await draw();
  again(draw);
  return el("div", {}, el("h2", {}, t("State")), place);
}

async function pageNetwork() {
  return el("div", {}, el("h2", {}, t("Network")), table(await data("mediator/network")));
}

// What waits for a second person.
async function pageChanges() {
  const place = el("div");
  const told = el("p", { role: "status" });
  const draw = async () => {
    const rows = await data("mediator/proposals");
    const act = (name, line) => el("button", { type: "button", onclick: async () => {
      try { told.textContent = ((await run(line)) || { text: "" }).text; } catch (e) { told.textContent = e.message; }
      await draw();
    } }, t(name));
    const row = (r) => el("tr", {}, ...[r.number, r.by, r.at, r.change].map((c) => el("td", {}, c)),
      el("td", {}, act("Approve", `mediator/approve ${r.number}`), " ", act("Reject", `mediator/reject ${r.number}`)));
    place.replaceChildren(rows.length === 0 ? el("p", { class: "dim" }, t("Nothing yet.")) : el("table", {}, el("tbody", {}, ...rows.map(row))));
  };
  await draw();
  return el("div", {}, el("h2", {}, t("Changes")), place, told);
}
