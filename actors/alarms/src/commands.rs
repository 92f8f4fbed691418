//! `alarms/…` and `domain/<D>/alarms/…`, as the original has them.

use command::{Call, Command, CommandError, DeclareError, Kind, Output, Table, Tree};
use kit::{
    Address, Node,
    alarm::{Alarm, Selection, Severity},
    ledger::{self, LedgerMsg},
};
use serde_json::json;

use crate::{
    Published,
    masks::{Mask, MaskCommand, MasksBook},
};

const SEVERITIES: &[&str] = &["critical", "major", "minor", "warning"];

pub fn register(tree: &mut Tree, node: &Node, masks: &Published) -> Result<(), DeclareError> {
    let (listing, clearing, adding, removing) = (node.clone(), node.clone(), node.clone(), node.clone());
    let (own_list, own_clear, shown) = (node.clone(), node.clone(), masks.clone());
    let list = |c: Command| {
        c.option("--severity", Kind::OneOf(SEVERITIES), "this severity and worse", "эта важность и выше")
            .flag("--cleared", "those that are over, the newest first", "снятые, сначала новые")
            .flag("--masked", "masked ones too", "и замаскированные")
    };
    let selects = |c: Command| {
        c.option("-c", Kind::Text, "class; may end in *", "класс, в конце возможна *")
            .option("-i", Kind::Text, "instance", "объект")
            .option("-l", Kind::Text, "location, node@host", "узел, node@host")
    };
    let clear = |c: Command| {
        selects(c.arg("all", Kind::OneOf(&["all"]), "every alarm", "все аварии").optional())
            .confirm(|_| "You are going to clear alarms; a condition that still holds is raised anew only when it changes.".into())
    };
    let domain = |c: Command| c.option("-d", Kind::Text, "domain", "домен");
    tree.add([
        domain(selects(list(Command::look(
            "alarms/list",
            "lists the alarms that one may see, the most urgent first",
            "список аварий, сначала самые важные",
            move |call| std::future::ready(Ok(shown_list(&listing, &call, None))),
        ))))
        .for_everyone(),
        domain(clear(Command::change(
            "alarms/clear",
            "clears alarms",
            "снять аварии",
            move |call| std::future::ready(cleared(&clearing, &call, None)),
        )))
        .system_only(),
        domain(selects(Command::change(
            "alarms/mask/add",
            "hides alarms: they are neither listed, counted nor sent on",
            "скрывать аварии: не показывать, не считать и не отправлять",
            move |call| {
                let node = adding.clone();
                async move {
                    let selection = selection(&call, None);
                    if selection == Selection::default() {
                        return Err(CommandError::Usage("say what is hidden: -c, -d, -i or -l".into()));
                    }
                    let mask = Mask { selection, by: call.caller.name.clone() };
                    let number = change(&node, MaskCommand::Add(mask), &call).await?;
                    Ok(Output::text(format!("mask {number} added")).with_data(json!({ "mask": number })))
                }
            },
        )))
        .system_only(),
        Command::change("alarms/mask/remove", "removes a mask", "удалить маску", move |call| {
            let node = removing.clone();
            async move {
                let number = call.number("mask").unwrap_or_default();
                change(&node, MaskCommand::Remove(number), &call).await?;
                Ok(Output::ok())
            }
        })
        .arg("mask", Kind::Number(1, u64::MAX), "its number", "номер")
        .system_only(),
        Command::look("alarms/mask/list", "lists the masks", "список масок", move |_| {
            let mut table =
                Table::new(["Mask", "Class", "Domain", "Instance", "Location", "By"]).numbers(&["Mask"]);
            for (number, mask) in &shown.load().all {
                let s = &mask.selection;
                let part = |o: &Option<String>| o.clone().unwrap_or_default();
                let parts = [&s.class, &s.domain, &s.instance, &s.location].map(part);
                table.row(std::iter::once(number.to_string()).chain(parts).chain([mask.by.clone()]));
            }
            std::future::ready(Ok(Output::table(table)))
        })
        .system_only(),
        selects(list(Command::look(
            "domain/{domain}/alarms/list",
            "lists the domain's alarms, the most urgent first",
            "список аварий домена, сначала самые важные",
            move |call| {
                let domain = call.var("domain").to_owned();
                std::future::ready(Ok(shown_list(&own_list, &call, Some(domain))))
            },
        ))),
        clear(Command::change(
            "domain/{domain}/alarms/clear",
            "clears alarms of the domain",
            "снять аварии домена",
            move |call| {
                let domain = call.var("domain").to_owned();
                std::future::ready(cleared(&own_clear, &call, Some(domain)))
            },
        )),
    ])
}

fn selection(call: &Call, domain: Option<String>) -> Selection {
    let own = |name| call.opt(name).map(str::to_owned);
    Selection {
        class: own("-c"),
        instance: own("-i"),
        location: own("-l"),
        domain: domain.or_else(|| own("-d")),
    }
}

fn shown_list(node: &Node, call: &Call, domain: Option<String>) -> Output {
    let grants = &call.caller.grants;
    let worst: Option<Severity> = call.opt("--severity").and_then(|s| s.parse().ok());
    let selection = selection(call, domain);
    let seen = |a: &Alarm| match &a.domain {
        Some(domain) => grants.sees_domain(domain),
        None => grants.system || grants.read_only,
    };
    let over = call.flag("--cleared");
    let all = if over { node.alarms().cleared() } else { node.alarms().active() };
    let wanted = |a: &Alarm| {
        seen(a)
            && selection.takes(a)
            && worst.is_none_or(|worst| a.severity >= worst)
            && (call.flag("--masked") || !a.masked)
    };
    let all: Vec<Alarm> = all.into_iter().filter(wanted).collect();
    let mut columns =
        vec!["Id", "Severity", "Class", "Domain", "Instance", "Location", "Since", "Count", "Cause"];
    if over {
        columns.extend(["Cleared", "By"]);
    }
    let mut table = Table::new(columns).numbers(&["Id", "Count"]);
    let time = |t: &kit::alarm::Time| t.format("%d.%m.%Y %H:%M:%S").to_string();
    for a in &all {
        let mut row = vec![
            a.id.to_string(),
            a.severity.name().to_owned(),
            a.class.to_owned(),
            a.domain.clone().unwrap_or_default(),
            a.instance.clone(),
            a.location.clone(),
            time(&a.since),
            a.count.to_string(),
            a.cause.clone(),
        ];
        if over {
            row.extend([a.cleared.as_ref().map(time), a.cleared_by.clone()].map(Option::unwrap_or_default));
        }
        table.row(row);
    }
    Output::table(table).and_text(format!("elements: {}", all.len())).with_data(json!(all))
}

fn cleared(node: &Node, call: &Call, domain: Option<String>) -> Result<Output, CommandError> {
    let selection = selection(call, domain.clone());
    let nothing = Selection { domain, ..Selection::default() };
    if (call.get("all") == "all") != (selection == nothing) {
        return Err(CommandError::Usage("say all, or which: -c, -d, -i or -l".into()));
    }
    let count = node.alarms().clear_selected(&call.caller.name, |a| selection.takes(a));
    Ok(Output::text(format!("cleared: {count}")).with_data(json!({ "cleared": count })))
}

async fn change(node: &Node, command: MaskCommand, call: &Call) -> Result<u64, CommandError> {
    let name = Address::new("alarms/masks").map_err(CommandError::failed)?;
    let ledger = node.registry().lookup::<LedgerMsg<MasksBook>>(&name).map_err(CommandError::failed)?;
    ledger::change(&ledger, command, call.caller.origin()).await.map_err(CommandError::failed)
}
