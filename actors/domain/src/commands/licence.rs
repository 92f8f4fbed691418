//! `cluster/storage/ds1/licence/…` and `system/licence/…`.

use command::{Call, Command, CommandError, Kind, Output, Table};
use serde_json::json;

use super::with;
use crate::{
    Services,
    actor::{LicenceBook, change},
    licence::{LicenceCommand, Terms},
};

pub(super) fn commands(s: &Services) -> Vec<Command> {
    vec![
        Command::change(
            "cluster/storage/ds1/licence/add",
            "installs a licence file, given on standard input",
            "установить файл лицензии со стандартного ввода",
            with!(s, |s, call| add(&s, &call).await),
        )
        .arg("source", Kind::OneOf(&["-"]), "-: standard input", "-: стандартный ввод")
        .system_only(),
        Command::look(
            "cluster/storage/ds1/licence/show-licence",
            "shows the licence in force",
            "показать действующую лицензию",
            with!(s, |s, call| Ok(show(&s, &call))),
        )
        .option("--details", Kind::Number(0, 1), "1: with all limits", "1: со всеми ограничениями"),
        Command::look(
            "cluster/storage/ds1/licence/current-limits",
            "shows the limits in force and what is used",
            "действующие ограничения и их использование",
            with!(s, |s, _call| Ok(limits(&s))),
        ),
    ]
}

async fn add(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let file = call.input.as_ref().and_then(|i| std::str::from_utf8(i).ok()).unwrap_or_default();
    let command = LicenceCommand::Add { file: file.to_owned(), now: s.node.clock().now() };
    change::<LicenceBook>(&s.node, "licence", command, call.caller.origin())
        .await
        .map_err(CommandError::failed)?;
    Ok(Output::ok())
}

fn rows(t: &Terms) -> Vec<(&'static str, String)> {
    vec![
        ("Count of domains", t.domains.to_string()),
        ("Count of subscribers", t.subscribers.to_string()),
        ("Sorm enabled", t.sorm.to_string()),
        ("Automatic Speech Recognition (ASR) subsystem enabled", t.asr.to_string()),
        ("Elph: total count of Elph group", t.elph_groups.to_string()),
        ("Elph: total count of members of the one Elph group", t.elph_members.to_string()),
    ]
}

fn show(s: &Services, call: &Call) -> Output {
    let licence = s.estate.picture().licence.clone();
    let mut table = Table::new(["Property", "Value"]);
    let day = |d: &Option<chrono::DateTime<chrono::Utc>>| {
        d.map_or_else(|| "unlimited".to_owned(), |d| d.to_rfc3339())
    };
    table.row(["Installation", &licence.terms.installation]);
    table.row(["Installed", if licence.file.is_some() { "true" } else { "false" }]);
    table.row(["Valid to", &day(&licence.terms.not_after)]);
    if call.number("--details") == Some(1) {
        rows(&licence.terms).into_iter().for_each(|(n, v)| table.row([n.to_owned(), v]));
    }
    Output::table(table)
}

fn limits(s: &Services) -> Output {
    let picture = s.estate.picture();
    let mut table = Table::new(["Property", "Value", "Used"]);
    let used = [picture.domains.len().to_string(), picture.subscribers().to_string()];
    for (i, (name, value)) in rows(&picture.licence.terms).into_iter().enumerate() {
        table.row([name.to_owned(), value, used.get(i).cloned().unwrap_or_default()]);
    }
    let data = json!({
        "terms": picture.licence.terms,
        "used": { "domains": picture.domains.len(), "subscribers": picture.subscribers() },
    });
    Output::table(table).with_data(data)
}
