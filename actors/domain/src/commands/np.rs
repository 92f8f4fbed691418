//! `domain/<D>/np/…`: number plans.

use std::sync::Arc;

use command::{Call, Command, CommandError, Kind, Output, Table, range};

use super::{change_domain, change_domain_ok, names, plans, state, with};
use crate::{Services, decide::DomainCommand, state::Binding};

/// Rows a listing shows at most.
const SHOWN: usize = 1000;

pub(super) fn commands(s: &Services) -> Vec<Command> {
    let bridges = || {
        let estate = s.estate.clone();
        Arc::new(move |call: &Call| {
            estate.picture().bridges.of_domain(call.var("domain")).map(|b| b.name.clone()).collect()
        }) as command::Names
    };
    let plan = |c: Command| c.arg("numplan", Kind::Text, "number plan", "план нумерации").names(plans(s));
    let numbers =
        |c: Command| c.arg("numbers", Kind::Text, "number or range: 7383271000{0-1}", "номер или диапазон");
    vec![
        Command::change(
            "domain/{domain}/np/declare",
            "declares a number plan",
            "объявить план нумерации",
            with!(s, |s, call| {
                let digitmap = call.opt("--digitmap").map(str::parse).transpose();
                let digitmap = digitmap.map_err(|e: crate::routing::digitmap::DigitmapError| {
                    CommandError::Usage(e.to_string())
                })?;
                let plan = call.get("numplan").to_owned();
                if plan == crate::routing::route::DEFAULT_PLAN {
                    return Err(CommandError::Failed(
                        "default is the domain's own short numbering; choose another name".into(),
                    ));
                }
                let description = call.get("--description").to_owned();
                change_domain_ok(&s, &call, DomainCommand::DeclarePlan { plan, digitmap, description }).await
            }),
        )
        .arg("numplan", Kind::Text, "its name", "имя плана")
        .option("--digitmap", Kind::Text, "digitmap of its numbers", "digitmap номеров")
        .option("--description", Kind::Text, "what it is for", "описание"),
        Command::look(
            "domain/{domain}/np/list",
            "lists the number plans",
            "список планов нумерации",
            with!(s, |s, call| {
                let mut table =
                    Table::new(["Name", "Numbers", "Digitmap", "Description"]).numbers(&["Numbers"]);
                for (name, plan) in &state(&s, &call)?.plans {
                    let digitmap = plan.digitmap.as_ref().map(ToString::to_string).unwrap_or_default();
                    table.row([
                        name.clone(),
                        plan.numbers.len().to_string(),
                        digitmap,
                        plan.description.clone(),
                    ]);
                }
                Ok(Output::table(table))
            }),
        ),
        plan(Command::change(
            "domain/{domain}/np/remove",
            "removes a number plan with its numbers",
            "удалить план нумерации",
            with!(s, |s, call| {
                change_domain_ok(&s, &call, DomainCommand::RemovePlan(call.get("numplan").to_owned())).await
            }),
        ))
        .confirm(|c| {
            format!("You are going to remove number plan {} with all its numbers.", c.get("numplan"))
        }),
        numbers(plan(Command::change(
            "domain/{domain}/np/numbers/add",
            "adds numbers to a plan",
            "добавить номера в план",
            with!(s, |s, call| add(&s, &call).await),
        ))),
        numbers(plan(Command::change(
            "domain/{domain}/np/numbers/remove",
            "removes numbers from a plan",
            "удалить номера из плана",
            with!(s, |s, call| {
                let (plan, numbers) = (call.get("numplan").to_owned(), call.range("numbers")?);
                change_domain_ok(&s, &call, DomainCommand::RemoveNumbers { plan, numbers }).await
            }),
        ))),
        numbers(plan(Command::change(
            "domain/{domain}/np/numbers/bind",
            "binds numbers to a bridge or to local numbers",
            "привязать номера к бриджу или локальным номерам",
            with!(s, |s, call| bind(&s, &call).await),
        )))
        .option("--bridge", Kind::Text, "bridge that leads on", "бридж")
        .option_names(bridges())
        .option(
            "--alias",
            Kind::Text,
            "local numbers, and optionally group and interface",
            "локальные номера, затем по желанию группа и интерфейс",
        )
        .option_many()
        .option_names(names(s, |d| d.aliases.keys().cloned().collect()))
        .flag(
            "--master",
            "the local number takes the calls; one only",
            "локальный номер — мастер, только один",
        )
        .flag("--passive", "it does not (the default)", "не мастер (по умолчанию)"),
        numbers(plan(Command::change(
            "domain/{domain}/np/numbers/unbind",
            "frees numbers",
            "отвязать номера",
            with!(s, |s, call| {
                let (plan, numbers) = (call.get("numplan").to_owned(), call.range("numbers")?);
                change_domain_ok(&s, &call, DomainCommand::Unbind { plan, numbers }).await
            }),
        ))),
        plan(Command::look(
            "domain/{domain}/np/numbers/list",
            "lists the numbers of a plan",
            "номера плана",
            with!(s, |s, call| list(&s, &call)),
        )),
    ]
}

async fn add(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let (plan, numbers) = (call.get("numplan").to_owned(), call.range("numbers")?);
    let before = state(s, call)?;
    let known = |n: &String| before.plans.get(&plan).is_some_and(|p| p.numbers.contains_key(n));
    let mut table = Table::new(["Number", "Result"]);
    for number in &numbers {
        table.row([number.as_str(), if known(number) { "already_added" } else { "ok" }]);
    }
    change_domain(s, call, DomainCommand::AddNumbers { plan: plan.clone(), numbers }).await?;
    // The whole answer would be as long as the range.
    let all = table.rows.len();
    table.rows.truncate(SHOWN);
    Ok(Output::table(table).and_text(format!("{} of {all} shown", all.min(SHOWN))))
}

async fn bind(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let (plan, numbers) = (call.get("numplan").to_owned(), call.range("numbers")?);
    let usage = |text: &str| Err(CommandError::Usage(text.into()));
    if call.flag("--master") && call.flag("--passive") {
        return usage("--master or --passive, not both");
    }
    let command = match (call.opt("--bridge"), call.all("--alias")) {
        (Some(bridge), []) => {
            if s.estate.picture().bridges.end_in(bridge, call.var("domain")).is_none() {
                let text = format!(
                    "no bridge {bridge} ends in domain {}; bridge/list shows all",
                    call.var("domain")
                );
                return Err(CommandError::Failed(text));
            }
            DomainCommand::BindBridge { plan, numbers, bridge: bridge.to_owned() }
        }
        (None, [aliases, rest @ ..]) => {
            let (group, iface) = match rest {
                [] => (None, None),
                [group, iface] => (Some(group.clone()), Some(iface.clone())),
                _ => return usage("--alias wants local numbers, or local numbers, group and interface"),
            };
            let aliases = range::expand(aliases).map_err(|e| CommandError::Usage(e.to_string()))?;
            DomainCommand::BindAliases { plan, numbers, aliases, group, iface, master: call.flag("--master") }
        }
        _ => return usage("say --bridge <bridge> or --alias <numbers> [<group> <iface>], one of them"),
    };
    change_domain_ok(s, call, command).await
}

fn list(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let d = state(s, call)?;
    let name = call.get("numplan");
    let plan = d.plans.get(name);
    let plan = plan.ok_or_else(|| {
        CommandError::Failed(format!("there is no number plan {name:?}; np/list shows all"))
    })?;
    let page = call.page();
    let mut table = Table::new(["Number", "Bound to", "Mode", "Group", "Iface"]).grouped(1);
    let mut rows = page.rows(&mut table);
    for (number, binding) in &plan.numbers {
        let row = |to: String, mode: &str, group: &Option<String>, iface: &Option<String>| {
            let text = |o: &Option<String>| o.clone().unwrap_or_default();
            vec![number.clone(), to, mode.to_owned(), text(group), text(iface)]
        };
        rows.offer(number, || match binding {
            Binding::Free => vec![row(String::new(), "", &None, &None)],
            Binding::Bridge(b) => vec![row(format!("bridge {b}"), "", &None, &None)],
            Binding::Aliases(all) => all
                .iter()
                .map(|a| {
                    let mode = if a.master { "master" } else { "passive" };
                    row(format!("alias {}", a.address), mode, &a.group, &a.iface)
                })
                .collect(),
        });
    }
    let said = rows.end()?;
    Ok(Output::table(table).and_text(format!("elements: {}\n{said}", plan.numbers.len())).in_pages())
}
