//! `node/…` and `journal/…`: the node itself, seen and commanded.

use std::{sync::Arc, time::Duration};

use command::{Call, Command, CommandError, DeclareError, Kind, Names, Output, Table, Tree, said};
use kit::{
    Address, Cell, ExitReason, Node, Strategy, SupervisorHandle,
    journal::{Filter, Journal},
    tree::picture,
};
use serde_json::json;

/// How long an actor has to answer an inspection.
const PATIENCE: Duration = Duration::from_secs(2);

pub fn register(tree: &mut Tree, node: &Node, journal: &Arc<dyn Journal>) -> Result<(), DeclareError> {
    let names: Names = {
        let node = node.clone();
        Arc::new(move |_| node.registry().all().iter().map(|c| c.address().to_string()).collect())
    };
    let actor = |c: Command| c.arg("actor", Kind::Text, "its address", "адрес актора").names(names.clone());
    let n = node.clone();
    let look = move |f: fn(Node, Call) -> Result<Output, CommandError>| {
        let n = n.clone();
        move |call: Call| std::future::ready(f(n.clone(), call))
    };
    let with_node = |node: &Node| node.clone();
    let (inspecting, killing, stopping) = (with_node(node), with_node(node), with_node(node));
    let (restarting, starting) = (with_node(node), with_node(node));
    let journal = journal.clone();
    tree.add([
        Command::look(
            "node/tree",
            "shows the supervision tree",
            "дерево супервизоров",
            look(|n, _| Ok(tree_of(&n))),
        )
        .system_only(),
        actor(Command::look(
            "node/actor/info",
            "shows an actor's state, counters and last crash",
            "состояние актора, счётчики и последний сбой",
            move |call| {
                let node = inspecting.clone();
                async move { info(&node, &call).await }
            },
        ))
        .system_only(),
        actor(Command::change(
            "node/actor/kill",
            "kills an actor; its supervisor acts on it",
            "убить актор",
            move |call| {
                let node = killing.clone();
                async move {
                    find(&node, &call)?.exit(ExitReason::Killed);
                    Ok(Output::ok())
                }
            },
        ))
        .system_only()
        .confirm(|c| {
            let own = if own_way_in(c) { " It is your own way in: this session ends." } else { "" };
            format!("You are going to kill the actor {}.{own}", c.get("actor"))
        }),
        actor(Command::change(
            "node/actor/stop",
            "stops a child of a supervisor",
            "остановить актор",
            move |call| {
                let node = stopping.clone();
                async move {
                    let cell = find(&node, &call)?;
                    last_way_in(&node, cell.address())?;
                    let supervisor = supervisor_of(&node, &cell)?;
                    if supervisor.strategy().await.map_err(CommandError::failed)? == Strategy::Dynamic {
                        return Err(CommandError::Failed(format!(
                            "{0} is a dynamic child: once stopped it could not be started again. Remove what it \
                             stands for, or node/actor/restart or node/actor/kill it",
                            cell.address()
                        )));
                    }
                    supervisor.terminate_child(cell.address()).await.map_err(CommandError::failed)?;
                    Ok(Output::ok())
                }
            },
        ))
        .system_only()
        .confirm(|c| {
            let own = if own_way_in(c) { " It is your own way in: this session ends." } else { "" };
            format!("You are going to stop the actor {} until it is started again.{own}", c.get("actor"))
        }),
        actor(Command::change(
            "node/actor/restart",
            "stops a child of a supervisor in order and starts it again",
            "перезапустить актор",
            move |call| {
                let node = restarting.clone();
                async move {
                    let cell = find(&node, &call)?;
                    let supervisor = supervisor_of(&node, &cell)?;
                    if supervisor.strategy().await.map_err(CommandError::failed)? == Strategy::Dynamic {
                        // Such a supervisor forgets a child it is told to stop, and restarts one that stops.
                        cell.exit(ExitReason::Shutdown);
                    } else {
                        supervisor.terminate_child(cell.address()).await.map_err(CommandError::failed)?;
                        supervisor.restart_child(cell.address()).await.map_err(CommandError::failed)?;
                    }
                    Ok(Output::ok())
                }
            },
        ))
        .system_only()
        .confirm(|c| format!("You are going to restart the actor {}.", c.get("actor"))),
        Command::change(
            "node/actor/start",
            "starts a stopped child again",
            "запустить остановленный актор",
            move |call| {
                let node = starting.clone();
                async move {
                    let address = Address::new(call.get("actor")).map_err(CommandError::failed)?;
                    let parent =
                        picture(&node).into_iter().find(|l| l.address == address).and_then(|l| l.parent);
                    let parent = parent
                        .ok_or_else(|| CommandError::Failed(format!("no supervisor knows {address}")))?;
                    let supervisor = SupervisorHandle::find(&node, &parent).map_err(CommandError::failed)?;
                    supervisor.restart_child(&address).await.map_err(CommandError::failed)?;
                    Ok(Output::ok())
                }
            },
        )
        .arg("actor", Kind::Text, "its address", "адрес актора")
        .system_only(),
        actor(Command::change(
            "node/actor/trace",
            "publishes an actor's messages, or stops that",
            "трассировка сообщений",
            look(|n, call| {
                find(&n, &call)?.set_traced(call.get("on") == "true");
                Ok(Output::ok())
            }),
        ))
        .arg("on", Kind::Bool, "true or false", "true или false")
        .system_only(),
        Command::look(
            "node/crash/list",
            "lists the newest crash reports",
            "последние сбои",
            look(|n, _| Ok(crashes(&n))),
        )
        .system_only(),
        Command::look(
            "node/crash/info",
            "shows one crash report",
            "отчёт о сбое",
            look(|n, call| {
                let id = call.number("id").unwrap_or_default();
                let report = n.crashes().get(id);
                let report =
                    report.ok_or_else(|| CommandError::Failed(format!("there is no crash report {id}")))?;
                let data = serde_json::to_value(&report).map_err(CommandError::failed)?;
                let text = serde_json::to_string_pretty(&data).map_err(CommandError::failed)?;
                Ok(Output::text(text).with_data(data))
            }),
        )
        .arg("id", Kind::Number(1, u64::MAX), "its number", "номер")
        .system_only(),
        Command::look(
            "node/log/list",
            "lists the newest lines of the log",
            "последние строки журнала работы",
            look(|n, call| Ok(log(&n, &call))),
        )
        .option("--level", Kind::OneOf(LEVELS), "this level and worse", "этот уровень и хуже")
        .option("--text", Kind::Text, "text in the line or its module", "текст в строке или модуле")
        .option("--limit", Kind::Number(1, 1000), "how many; 50", "сколько; 50")
        .system_only(),
        Command::look(
            "journal/list",
            "lists the newest events",
            "последние события журнала",
            move |call| {
                let journal = journal.clone();
                async move { events(&journal, &call).await }
            },
        )
        .option("--stream", Kind::Text, "beginning of the stream's name", "начало имени потока")
        .option("--kind", Kind::Text, "kind of event", "вид события")
        .option("--who", Kind::Text, "who made the change", "кто изменил")
        .option("--text", Kind::Text, "text in the event", "текст в событии")
        .option("--before", Kind::Number(1, u64::MAX), "older than this number", "старше этого номера")
        .option("--limit", Kind::Number(1, 1000), "how many; 20", "сколько; 20")
        .system_only(),
    ])
}

/// The actors behind each way in for operators.
const WAYS_IN: [&[&str]; 2] = [&["cocon", "cocon/ssh", "cocon/sessions"], &["web"]];

/// Whether a command that stops an actor would end the caller's own session.
fn own_way_in(call: &Call) -> bool {
    let [ssh, web] = WAYS_IN.map(|names| names.contains(&call.get("actor")));
    (ssh && call.caller.from.starts_with("ssh")) || (web && call.caller.from.starts_with("web"))
}

/// The last way in stays open: nobody could undo its end.
fn last_way_in(node: &Node, stopped: &Address) -> Result<(), CommandError> {
    let lives = |names: &[&str]| {
        names.iter().all(|n| Address::new(*n).is_ok_and(|a| node.registry().find(&a).is_some()))
    };
    let Some(at) = WAYS_IN.iter().position(|names| names.contains(&stopped.as_str())) else { return Ok(()) };
    match WAYS_IN.iter().enumerate().any(|(i, names)| i != at && lives(names)) {
        true => Ok(()),
        false => Err(CommandError::Failed(format!(
            "{stopped} is the last way in that is open; nobody could start it again"
        ))),
    }
}

fn find(node: &Node, call: &Call) -> Result<Arc<Cell>, CommandError> {
    let address = Address::new(call.get("actor")).map_err(CommandError::failed)?;
    let cell = node.registry().find(&address);
    cell.ok_or_else(|| CommandError::Failed(format!("there is no actor {address}; node/tree shows all")))
}

fn supervisor_of(node: &Node, cell: &Cell) -> Result<SupervisorHandle, CommandError> {
    let parent =
        cell.parent().ok_or_else(|| CommandError::Failed("the root stops with the node only".into()))?;
    SupervisorHandle::find(node, parent).map_err(CommandError::failed)
}

fn tree_of(node: &Node) -> Output {
    let leaves = picture(node);
    let mut table = Table::new(["Actor", "Status", "Pid", "Mailbox", "Handled", "Restarts"]);
    fn below(leaves: &[kit::tree::Leaf], parent: Option<&Address>, depth: usize, table: &mut Table) {
        for leaf in leaves.iter().filter(|l| l.parent.as_ref() == parent) {
            let (mailbox, handled) = leaf.vitals.as_ref().map_or((0, 0), |v| (v.mailbox, v.handled));
            let status = serde_json::to_value(leaf.status).ok().and_then(|s| s.as_str().map(str::to_owned));
            table.row([
                format!("{}{}", "  ".repeat(depth), leaf.address),
                status.unwrap_or_default(),
                leaf.pid.map(|p| p.to_string()).unwrap_or_default(),
                mailbox.to_string(),
                handled.to_string(),
                leaf.restarts.to_string(),
            ]);
            below(leaves, Some(&leaf.address), depth + 1, table);
        }
    }
    below(&leaves, None, 0, &mut table);
    Output::table(table).with_data(json!(leaves))
}

async fn info(node: &Node, call: &Call) -> Result<Output, CommandError> {
    let cell = find(node, call)?;
    let data = json!({
        "address": cell.address(),
        "pid": cell.pid(),
        "actor": cell.type_name(),
        "kind": cell.kind(),
        "supervisor": cell.parent(),
        "monitored_by": cell.monitored_by(),
        "started": cell.started_at(),
        "restarts": cell.restarts(),
        "traced": cell.is_traced(),
        "vitals": cell.vitals(node.quanta()),
        "last_crash": node.crashes().last_of(cell.address()),
        "state": cell.inspect(PATIENCE).await.unwrap_or_else(|| json!("it does not answer: a handler is running")),
    });
    let text = serde_json::to_string_pretty(&data).map_err(CommandError::failed)?;
    Ok(Output::text(text).with_data(data))
}

/// From the worst.
const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace"];

fn log(node: &Node, call: &Call) -> Output {
    let rank =
        |level: &str| LEVELS.iter().position(|l| l.eq_ignore_ascii_case(level)).unwrap_or(LEVELS.len());
    let worst = call.opt("--level").map_or(LEVELS.len(), rank);
    let text = call.opt("--text").unwrap_or_default();
    let limit = call.number("--limit").and_then(|l| usize::try_from(l).ok()).unwrap_or(50);
    let wanted =
        |l: &kit::log::LogLine| rank(l.level) <= worst && (l.text.contains(text) || l.target.contains(text));
    let total = node.log().newest(usize::MAX, wanted).len();
    let lines = node.log().newest(limit, wanted);
    let mut table = Table::new(["At", "Level", "Module", "Text"]);
    for l in &lines {
        table.row([&l.at.to_rfc3339(), l.level, &l.target, &l.text]);
    }
    let text = said(lines.len(), total, None);
    Output::table(table).and_text(text).with_data(json!(lines))
}

fn crashes(node: &Node) -> Output {
    let reports = node.crashes().newest(50);
    let mut table = Table::new(["Id", "At", "Actor", "During", "Reason"]);
    for r in &reports {
        let during = r.during.clone().unwrap_or_default();
        table.row([r.id.to_string(), r.at.to_rfc3339(), r.address.to_string(), during, r.reason.to_string()]);
    }
    Output::table(table).with_data(json!(reports))
}

/// Hides hashes of passwords in an event's body: they can be guessed at leisure by whoever has seen them.
fn mask(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) if text.starts_with("$argon2") => kit::MARK.clone_into(text),
        serde_json::Value::Array(all) => all.iter_mut().for_each(mask),
        serde_json::Value::Object(all) => all.values_mut().for_each(mask),
        _ => {}
    }
}

async fn events(journal: &Arc<dyn Journal>, call: &Call) -> Result<Output, CommandError> {
    let own = |n: &str| call.opt(n).map(str::to_owned);
    let filter = Filter {
        stream_prefix: own("--stream"),
        kind: own("--kind"),
        who: own("--who"),
        text: own("--text"),
        before: call.number("--before"),
        limit: call.number("--limit").and_then(|l| usize::try_from(l).ok()).unwrap_or(20),
    };
    let mut found = journal.browse(filter).await.map_err(CommandError::failed)?;
    found.iter_mut().for_each(|e| mask(&mut e.body));
    let mut table = Table::new(["Seq", "At", "Stream", "Event", "Who", "From"]);
    for e in &found {
        table.row([
            &e.seq.to_string(),
            &e.at.to_rfc3339(),
            &e.stream,
            &e.kind,
            &e.origin.who,
            &e.origin.from,
        ]);
    }
    // The answer is bounded in bytes too.
    let older = found.last().filter(|e| e.seq > 1).map(|e| format!("older events: --before {}", e.seq));
    let output = Output::table(table).with_data(json!(found));
    Ok(older.into_iter().fold(output, Output::and_text))
}
