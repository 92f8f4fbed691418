//! `domain/<D>/call/…`, `domain/<D>/cdr/…` and `domain/<D>/ss/…`.

use std::{path::PathBuf, str::FromStr, sync::Arc};

use command::{Call, Command, CommandError, DeclareError, Kind, Output, Table, Tree, said, with};
use kit::{
    Address,
    journal::{Entry, Filter, Journal},
};
use serde_json::json;

use crate::{
    Board, CallMsg, Ladder, LegId, Line,
    actor::Services,
    board::CallView,
    record::{Cdr, RecordEvent},
    service::{self, Service},
    switch::{self, Switch},
};

/// Records looked through for one question.
const LOOKED_THROUGH: usize = 10_000;

/// Adds the family's commands.
pub fn register(tree: &mut Tree, s: &Services, journal: &Arc<dyn Journal>) -> Result<(), DeclareError> {
    let directories: Vec<String> = service_directories();
    tree.variable("service", Arc::new(move |_| directories.clone()));
    let estate = s.estate.clone();
    let aliases: command::Names = Arc::new(move |call| {
        let picture = estate.picture();
        picture
            .domains
            .get(call.var("domain"))
            .map(|d| d.aliases.keys().cloned().collect())
            .unwrap_or_default()
    });
    let board = s.board.clone();
    let calls: command::Names = Arc::new(move |call| {
        board.of_domain(call.var("domain")).iter().map(|v| id(&v.call).to_owned()).collect()
    });
    let j = journal.clone();
    tree.add([
        Command::look(
            "domain/{domain}/call/list",
            "shows the calls in progress",
            "текущие вызовы",
            with!(s, |s, call| Ok(list(&s.board, &call))),
        ),
        Command::look(
            "domain/{domain}/call/ladder",
            "shows what the legs and actors of a call said to each other, now or in the past",
            "лестница сообщений вызова",
            with!((s.clone(), j.clone()), |s, call| ladder(&s.0, &s.1, &call).await),
        )
        .arg("call", Kind::Text, "its identity, as call/list and cdr/list show it", "идентификатор вызова")
        .names(calls.clone()),
        Command::change(
            "domain/{domain}/call/end",
            "ends a call",
            "завершить вызов",
            with!(s, |s, call| tell(&s, &call, CallMsg::End)),
        )
        .arg("call", Kind::Text, "its identity, as call/list shows it", "идентификатор вызова")
        .names(calls.clone())
        .confirm(|c| format!("You are going to end call {}.", c.get("call"))),
        Command::change(
            "domain/{domain}/call/record/start",
            "records a call into a WAV file, its first party on the left, all others on the right",
            "записывать вызов в файл WAV: слева первый участник, справа остальные",
            with!(s, |s, call| start_recording(&s, &call)),
        )
        .arg("call", Kind::Text, "its identity, as call/list shows it", "идентификатор вызова")
        .names(calls.clone()),
        Command::change(
            "domain/{domain}/call/record/stop",
            "records a call no more",
            "прекратить запись вызова",
            with!(s, |s, call| tell(&s, &call, CallMsg::Record(None))),
        )
        .arg("call", Kind::Text, "its identity, as call/list shows it", "идентификатор вызова")
        .names(calls.clone()),
        Command::look(
            "domain/{domain}/teleconference/list",
            "shows the meetings and who takes part in them",
            "селекторные совещания и их участники",
            with!(s, |s, call| Ok(meetings(&s.board, &call))),
        ),
        Command::change(
            "domain/{domain}/teleconference/mic",
            "gives a member of a meeting the word, or takes it",
            "включить или выключить микрофон участника совещания",
            with!(s, |s, call| {
                let on = call.get("state") == "on";
                member(&s, &call, |leg| CallMsg::Word(leg, on))
            }),
        )
        .arg("manager", Kind::Text, "number of the manager whose meeting it is", "номер менеджера совещания")
        .names(aliases.clone())
        .arg("member", Kind::Text, "number of the member", "номер участника")
        .arg("state", Kind::OneOf(&["on", "off"]), "on or off", "on или off"),
        Command::change(
            "domain/{domain}/teleconference/drop",
            "sends a member of a meeting away",
            "отключить участника совещания",
            with!(s, |s, call| member(&s, &call, CallMsg::Dismiss)),
        )
        .arg("manager", Kind::Text, "number of the manager whose meeting it is", "номер менеджера совещания")
        .names(aliases.clone())
        .arg("member", Kind::Text, "number of the member", "номер участника"),
        Command::look(
            "domain/{domain}/cdr/list",
            "shows records of calls, the newest first",
            "записи о вызовах",
            with!((s.clone(), j), |s, call| records(&s.1, &call).await),
        )
        .option("--number", Kind::Text, "only with this number on either side", "только с этим номером")
        .option("--limit", Kind::Number(1, 1000), "at most so many, 50 unless told", "не более (50)")
        .option(
            "--after",
            Kind::Text,
            "older than this call, as the list names it",
            "старше этого вызова",
        ),
        Command::look(
            "domain/{domain}/cdr/files",
            "lists the files of call records; one that is being written ends in .part",
            "список файлов CDR; имя незавершённого оканчивается на .part",
            with!(s, |s, call| files(&s, &call)),
        )
        .paged(),
        Command::look(
            "domain/{domain}/cdr/show",
            "prints a file of call records",
            "вывести файл CDR",
            with!(s, |s, call| show(&s, &call)),
        )
        .arg("file", Kind::Text, "its name, as cdr/files shows it", "имя файла, как в cdr/files")
        .names({
            let s = s.clone();
            Arc::new(move |call: &Call| {
                listed(&s, call.var("domain"))
                    .map(|all| all.into_iter().map(|f| f.0).collect())
                    .unwrap_or_default()
            })
        }),
        Command::change(
            "domain/{domain}/ss/{service}/activate",
            "activates a supplementary service for numbers",
            "активировать услугу для номеров",
            with!(s, |s, call| set(&s, &call, true).await),
        )
        .arg("address", Kind::Text, "number or range", "номер или диапазон")
        .names(aliases.clone())
        .option("--number", Kind::Text, "where a forwarding leads", "номер переадресации")
        .option(
            "--timeout",
            Kind::Number(1, 600),
            "seconds until cfnr forwards",
            "секунд до переадресации cfnr",
        )
        .option("--limit", Kind::Number(1, 1000), "calls at once of ml", "одновременных вызовов ml")
        .option("--script", Kind::Text, "the script of personal-ivr", "сценарий услуги personal-ivr"),
        Command::change(
            "domain/{domain}/ss/{service}/deactivate",
            "deactivates a supplementary service for numbers",
            "деактивировать услугу для номеров",
            with!(s, |s, call| set(&s, &call, false).await),
        )
        .arg("address", Kind::Text, "number or range", "номер или диапазон")
        .names(aliases.clone()),
        Command::look(
            "domain/{domain}/ss/list",
            "shows the supplementary services of a number",
            "услуги номера",
            with!(s, |s, call| services(&s, &call)),
        )
        .arg("address", Kind::Text, "number", "номер")
        .names(aliases),
    ])
}

/// Largest file of records that is printed, bytes.
const PRINTED: u64 = 16 << 20;

/// Where a domain's files of a kind are.
fn directory(s: &Services, kind: &str, domain: &str) -> Result<PathBuf, CommandError> {
    let none = || CommandError::Failed("this node keeps no files".into());
    s.files.as_ref().map(|d| d.join(kind).join(domain)).ok_or_else(none)
}

/// Name, size and time of each file, the newest last.
fn listed(s: &Services, domain: &str) -> Result<Vec<(String, u64, std::time::SystemTime)>, CommandError> {
    let all = match std::fs::read_dir(directory(s, "cdr", domain)?) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        all => all.map_err(CommandError::failed)?,
    };
    let known = all.flatten().filter_map(|f| {
        let about = f.metadata().ok()?;
        Some((f.file_name().into_string().ok()?, about.len(), about.modified().ok()?))
    });
    let mut known: Vec<_> = known.collect();
    known.sort_by_key(|(_, _, at)| *at);
    Ok(known)
}

fn files(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let mut table = Table::new(["File", "Bytes", "Written"]).numbers(&["Bytes"]);
    let all = listed(s, call.var("domain"))?;
    let mut data = Vec::new();
    for (name, size, at) in &all {
        let at = chrono::DateTime::<chrono::Local>::from(*at).format("%d.%m.%Y %H:%M:%S").to_string();
        table.row([name, &size.to_string(), &at]);
        data.push(json!({ "file": name, "bytes": size, "written": at }));
    }
    Ok(Output::table(table).and_text(format!("elements: {}", all.len())).with_data(json!(data)))
}

fn show(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let (domain, name) = (call.var("domain"), call.get("file"));
    let found = listed(s, domain)?.into_iter().find(|(n, ..)| n == name);
    let none = || CommandError::Failed(format!("there is no file {name}; cdr/files shows all"));
    let (name, size, _) = found.ok_or_else(none)?;
    let path = directory(s, "cdr", domain)?.join(name);
    if size > PRINTED {
        return Err(CommandError::Failed(format!(
            "it is larger than {PRINTED} bytes; read it at {}",
            path.display()
        )));
    }
    let text = std::fs::read_to_string(path).map_err(CommandError::failed)?;
    Ok(Output::text(text.trim_end().to_owned()))
}

fn service_directories() -> Vec<String> {
    Service::names().map(|n| n.replace('_', "-")).collect()
}

/// The last part of a call's name.
fn id(call: &str) -> &str {
    call.rsplit('/').next().unwrap_or(call)
}

/// The sign in place of a domain that the caller may not see.
const HIDDEN: &str = "…";

/// A call over a bridge, as the people of one domain see it: of the others they know that they are there.
fn own_side(view: &mut CallView, call: &Call) {
    let sees = |domain: &str| call.caller.grants.sees_domain(domain);
    if view.domains.iter().all(|d| sees(d)) {
        return;
    }
    for domain in view.domains.iter_mut().filter(|d| !sees(d)) {
        HIDDEN.clone_into(domain);
    }
    view.bridges.iter_mut().for_each(|b| HIDDEN.clone_into(b));
    view.recording = None;
    for leg in view.legs.iter_mut().filter(|l| !sees(&l.domain)) {
        for text in [&mut leg.iface, &mut leg.number, &mut leg.domain] {
            HIDDEN.clone_into(text);
        }
        leg.quality = None;
    }
}

fn list(board: &Board, call: &Call) -> Output {
    let mut table = Table::new(["Call", "A", "B", "State", "Since", "Domains", "Bridges", "Legs"]);
    let mut all = board.of_domain(call.var("domain"));
    all.iter_mut().for_each(|v| own_side(v, call));
    for v in &all {
        let legs: Vec<String> = v.legs.iter().map(|l| format!("{} {}", l.iface, l.state)).collect();
        let since = v.since.format("%H:%M:%S").to_string();
        let (domains, bridges, legs) = (v.domains.join(", "), v.bridges.join(", "), legs.join(", "));
        table.row([id(&v.call), &v.a, &v.b, v.state, &since, &domains, &bridges, &legs]);
    }
    Output::table(table).and_text(format!("elements: {}", all.len())).with_data(json!(all))
}

/// The call in progress with this identity in which the domain takes part.
fn in_progress(board: &Board, call: &Call) -> Option<Address> {
    Address::new(&view(board, call)?.call).ok()
}

fn view(board: &Board, call: &Call) -> Option<CallView> {
    let wanted = call.get("call");
    board.of_domain(call.var("domain")).into_iter().find(|v| id(&v.call) == wanted)
}

/// Tells the call in progress something.
fn tell(s: &Services, call: &Call, message: CallMsg) -> Result<Output, CommandError> {
    let none = || CommandError::Failed(format!("there is no call {}; call/list shows all", call.get("call")));
    let found = in_progress(&s.board, call).ok_or_else(none)?;
    let mailbox = s.node.registry().lookup::<CallMsg>(&found).map_err(CommandError::failed)?;
    mailbox.tell(message).map_err(|e| CommandError::Failed(e.to_string()))?;
    Ok(Output::ok())
}

fn start_recording(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let directory = directory(s, "recordings", call.var("domain"))?;
    let stamp = s.node.clock().now().with_timezone(&chrono::Local).format("%Y%m%d_%H%M%S");
    let file = directory.join(format!("{stamp}_{}.wav", call.get("call")));
    tell(s, call, CallMsg::Record(Some(file.clone())))?;
    Ok(Output::text(file.display().to_string()))
}

fn meetings(board: &Board, call: &Call) -> Output {
    let mut table =
        Table::new(["Manager", "Member", "Interface", "Microphone", "Asks for the word", "Since"]).grouped(1);
    let all: Vec<_> =
        board.of_domain(call.var("domain")).into_iter().filter(|v| v.meeting.is_some()).collect();
    for v in &all {
        let since = v.since.format("%H:%M:%S").to_string();
        for l in &v.legs {
            let (mic, hand) = (if l.muted { "off" } else { "on" }, if l.hand { "yes" } else { "" });
            table.row([v.meeting.as_deref().unwrap_or_default(), &l.number, &l.iface, mic, hand, &since]);
        }
    }
    Output::table(table).and_text(format!("elements: {}", all.len())).with_data(json!(all))
}

/// Tells the manager's meeting something about one of its members.
fn member(s: &Services, call: &Call, what: impl Fn(LegId) -> CallMsg) -> Result<Output, CommandError> {
    let (domain, manager, number) = (call.var("domain"), call.get("manager"), call.get("member"));
    let none = || CommandError::Failed(format!("{manager} has no meeting; teleconference/list shows all"));
    let meeting = s.board.meeting(domain, manager).ok_or_else(none)?;
    let view = s.board.of_domain(domain).into_iter().find(|v| v.call == meeting.as_str());
    let legs = view.iter().flat_map(|v| &v.legs).filter(|l| l.number == number);
    let legs: Vec<LegId> = legs.map(|l| l.leg).collect();
    if legs.is_empty() {
        return Err(CommandError::Failed(format!("{number} takes no part in the meeting of {manager}")));
    }
    let mailbox = s.node.registry().lookup::<CallMsg>(&meeting).map_err(CommandError::failed)?;
    for leg in legs {
        mailbox.tell(what(leg)).map_err(|e| CommandError::Failed(e.to_string()))?;
    }
    Ok(Output::ok())
}

async fn ladder(s: &Services, journal: &Arc<dyn Journal>, call: &Call) -> Result<Output, CommandError> {
    let view = view(&s.board, call);
    only_own(view.iter().flat_map(|v| &v.domains), call)?;
    let ladder = view.and_then(|v| s.board.ladder(&Address::new(&v.call).ok()?));
    let lines = match ladder {
        Some(ladder) => ladder.lines(),
        None => past(&s.board, journal, call).await?,
    };
    let mut table = Table::new(["Time", "From", "To", "Message"]);
    for l in &lines {
        table.row([&l.at.format("%H:%M:%S%.3f").to_string(), &l.from, &l.to, &l.text]);
    }
    Ok(Output::table(table).with_data(json!(lines)))
}

/// Messages of other domains' phones and gateways are not for people of one.
fn only_own<'d>(domains: impl IntoIterator<Item = &'d String>, call: &Call) -> Result<(), CommandError> {
    match domains.into_iter().all(|d| call.caller.grants.sees_domain(d)) {
        true => Ok(()),
        false => {
            let text = "the call passes another domain: its messages are the system administrator's to see";
            Err(CommandError::Denied(text.into()))
        }
    }
}

async fn past(board: &Board, journal: &Arc<dyn Journal>, call: &Call) -> Result<Vec<Line>, CommandError> {
    let wanted = call.get("call");
    let entries = browse(journal, "CallEnded", Some(wanted.to_owned()), 50).await?;
    let mut found = entries.into_iter().filter_map(ended).filter(|(cdr, _)| {
        id(&cdr.call) == wanted && cdr.sides.iter().any(|s| s.domain == call.var("domain"))
    });
    let none =
        || CommandError::Failed(format!("there is no call {wanted}; call/list and cdr/list show them"));
    let (cdr, lines) = found.next().ok_or_else(none)?;
    only_own(cdr.sides.iter().map(|s| &s.domain), call)?;
    let name = cdr.call;
    if !lines.is_empty() {
        return Ok(lines);
    }
    let traced = browse(journal, "CallTraced", Some(wanted.to_owned()), 50).await?;
    let kept = traced.into_iter().find_map(|entry| match serde_json::from_value(entry.body) {
        Ok(RecordEvent::Traced { call, ladder }) if call == name => Some(Ladder::read(&ladder)),
        _ => None,
    });
    // A call that is over, but still waits for its last messages.
    let ending = || board.ladder(&kit::Address::new(name.clone()).ok()?).map(|l| l.lines());
    Ok(kept.or_else(ending).unwrap_or_default())
}

async fn browse(
    journal: &Arc<dyn Journal>,
    kind: &str,
    text: Option<String>,
    limit: usize,
) -> Result<Vec<Entry>, CommandError> {
    let filter = Filter {
        stream_prefix: Some(crate::records::NAME.into()),
        kind: Some(kind.into()),
        text,
        limit,
        ..Filter::default()
    };
    journal.browse(filter).await.map_err(CommandError::failed)
}

fn ended(entry: Entry) -> Option<(Cdr, Vec<Line>)> {
    match serde_json::from_value(entry.body) {
        Ok(RecordEvent::Ended { cdr, ladder }) => Some((*cdr, Ladder::read(&ladder))),
        _ => None,
    }
}

/// A record as the people of one domain see it.
fn record_of_own_side(mut cdr: Cdr, call: &Call) -> Cdr {
    let sees = |domain: &str| call.caller.grants.sees_domain(domain);
    if cdr.sides.first().is_some_and(|caller| !sees(&caller.domain)) {
        cdr.user_agent.clear();
    }
    cdr.sides.retain(|s| sees(&s.domain));
    cdr
}

async fn records(journal: &Arc<dyn Journal>, call: &Call) -> Result<Output, CommandError> {
    let limit = call.number("--limit").unwrap_or(50) as usize;
    let number = call.opt("--number");
    let entries = browse(journal, "CallEnded", number.map(str::to_owned), LOOKED_THROUGH).await?;
    let mut table =
        Table::new(["Call", "Setup", "A", "B", "From", "To", "Seconds", "Cause", "By", "Service"])
            .numbers(&["Seconds", "Cause"]);
    let (mut data, mut total, mut last, mut more) = (Vec::new(), 0, None, false);
    let mut behind = call.opt("--after").is_none();
    for (cdr, _) in entries.into_iter().filter_map(ended) {
        // Of several passes through the domain, the last one is where the call went.
        let Some(side) = cdr.sides.iter().rev().find(|s| s.domain == call.var("domain")) else { continue };
        if number.is_some_and(|n| side.a != n && side.b != n) {
            continue;
        }
        total += 1;
        if !behind {
            behind = call.opt("--after") == Some(id(&cdr.call));
            continue;
        }
        if data.len() == limit {
            more = true;
            continue;
        }
        let cause = cdr.cause.map(|c| c.to_string()).unwrap_or_default();
        let (setup, seconds) = (cdr.setup.format("%d.%m.%Y %H:%M:%S").to_string(), cdr.seconds().to_string());
        table.row([
            id(&cdr.call),
            &setup,
            &side.a,
            &side.b,
            &side.from,
            &side.to,
            &seconds,
            &cause,
            &cdr.released_by,
            &cdr.service,
        ]);
        last = Some(id(&cdr.call).to_owned());
        let side = side.clone();
        let seconds = cdr.seconds();
        let cdr = record_of_own_side(cdr, call);
        data.push(json!({ "cdr": cdr, "side": side, "seconds": seconds }));
    }
    if !behind {
        let after = call.opt("--after").unwrap_or_default();
        return Err(CommandError::Failed(format!(
            "no record of a call {after} is among the newest {LOOKED_THROUGH}"
        )));
    }
    let text = said(data.len(), total, last.filter(|_| more));
    let count = data.len();
    Ok(Output::table(table).and_text(format!("elements: {count}")).and_text(text).with_data(json!(data)))
}

async fn set(s: &Services, call: &Call, active: bool) -> Result<Output, CommandError> {
    let (name, domain) = (call.var("service"), call.var("domain"));
    let unknown = || {
        CommandError::Failed(format!(
            "there is no service {name}; there are {}",
            service_directories().join(", ")
        ))
    };
    let service = Service::from_str(&name.replace('-', "_")).map_err(|_| unknown())?;
    let addresses = call.range("address")?;
    let options: Vec<(String, String)> = ["--number", "--timeout", "--limit", "--script"]
        .iter()
        .filter_map(|o| Some((o.trim_start_matches('-').to_owned(), call.opt(o)?.to_owned())))
        .collect();
    if let Some((_, wrong)) = options.iter().find(|(n, v)| n == "number" && !domain::routing::is_dialled(v)) {
        return Err(CommandError::Usage(format!(
            "--number: 1 to 64 of 0-9, * and # are wanted, not {wrong:?}"
        )));
    }
    let text: Vec<String> = addresses
        .iter()
        .map(|a| {
            let done = if active { "activated" } else { "deactivated" };
            format!(
                "Success: Supplementary service {} {done} for domain \"{domain}\" address \"{a}\"",
                service.name()
            )
        })
        .collect();
    let wanted = Switch { domain: domain.to_owned(), addresses, service, active, options };
    switch::switch(&s.node, &s.estate, wanted, call.caller.origin()).await.map_err(CommandError::failed)?;
    Ok(Output::text(text.join("\n")))
}

fn services(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let (domain, address) = (call.var("domain"), call.get("address"));
    let (picture, now) = (s.estate.picture(), s.node.clock().now());
    let state = picture
        .domains
        .get(domain)
        .ok_or_else(|| CommandError::Failed(format!("there is no domain {domain}")))?;
    if !state.aliases.contains_key(address) {
        return Err(CommandError::Failed(format!("domain {domain} has no number {address}")));
    }
    let mut table = Table::new(["Service", "Active", "Options"]);
    let mut data = Vec::new();
    for name in Service::names() {
        let Ok(service) = Service::from_str(name) else { continue };
        let active = service::active(&picture, now, domain, address, service);
        let known = state.services.get(address).and_then(|all| all.get(name));
        let shown = |(n, v): (&String, &String)| format!("{n}={v}");
        let options: Vec<String> = known.iter().flat_map(|k| k.options.iter()).map(shown).collect();
        table.row([name, if active.is_some() { "true" } else { "false" }, &options.join(" ")]);
        data.push(json!({ "service": name, "active": active.is_some(), "options": options }));
    }
    Ok(Output::table(table).with_data(json!(data)))
}
