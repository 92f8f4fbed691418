//! `domain/<D>/ivr/script/…`.

use std::sync::Arc;

use command::{Call, Command, CommandError, DeclareError, Kind, Output, Table, Tree, with};
use kit::{journal::Origin, ledger};
use serde_json::json;

use crate::{
    actor::Services,
    library::{Change, LibraryBook, NAME},
    script::Script,
};

/// Adds the family's commands.
pub fn register(tree: &mut Tree, s: &Services) -> Result<(), DeclareError> {
    let library = s.library.clone();
    let scripts: command::Names = Arc::new(move |call| {
        library.load().scripts(call.var("domain")).map(|(id, _)| id.to_owned()).collect()
    });
    tree.add([
        Command::change(
            "domain/{domain}/ivr/script/.import",
            "imports a script from JSON, behind --json or on standard input",
            "импортировать сценарий из JSON (после --json или со стандартного ввода)",
            with!(s, |s, call| import(&s, &call).await),
        )
        .option("--id", Kind::Text, "its name; the JSON's own id does not count", "имя сценария")
        .raw("--json", "the script, to the end of the line", "сценарий, до конца строки"),
        Command::look(
            "domain/{domain}/ivr/script/list",
            "lists the scripts",
            "список сценариев",
            with!(s, |s, call| list(&s, &call)),
        ),
        Command::look(
            "domain/{domain}/ivr/script/export",
            "shows a script as JSON",
            "показать сценарий в JSON",
            with!(s, |s, call| export(&s, &call)),
        )
        .arg("script", Kind::Text, "its name", "имя сценария")
        .names(scripts.clone()),
        Command::look(
            "domain/{domain}/ivr/script/validate",
            "looks whether the JSON on standard input is a script, without keeping it",
            "проверить сценарий со стандартного ввода, не сохраняя его",
            with!((), |_s, call| validate(&call)),
        )
        .raw("--json", "the script, to the end of the line", "сценарий, до конца строки"),
        Command::change(
            "domain/{domain}/ivr/script/rename",
            "renames a script",
            "переименовать сценарий",
            with!(s, |s, call| {
                let (id, to) = (call.get("script").to_owned(), call.get("name").to_owned());
                change(&s, &call, Change::Rename { domain: call.var("domain").to_owned(), id, to }).await
            }),
        )
        .arg("script", Kind::Text, "its name", "имя сценария")
        .names(scripts.clone())
        .arg("name", Kind::Text, "its new name", "новое имя"),
        Command::change(
            "domain/{domain}/ivr/script/remove",
            "removes a script",
            "удалить сценарий",
            with!(s, |s, call| {
                let id = call.get("script").to_owned();
                change(&s, &call, Change::Remove { domain: call.var("domain").to_owned(), id }).await
            }),
        )
        .arg("script", Kind::Text, "its name", "имя сценария")
        .names(scripts)
        .confirm(|c| format!("You are going to remove script {}.", c.get("script"))),
    ])
}

async fn change(s: &Services, call: &Call, change: Change) -> Result<Output, CommandError> {
    let origin = Origin { who: call.caller.name.clone(), from: call.caller.from.clone() };
    ledger::change_at::<LibraryBook>(&s.node, NAME, change, origin).await.map_err(CommandError::failed)?;
    Ok(Output::text("ok"))
}

/// The JSON that came with a command.
fn given(call: &Call) -> Result<serde_json::Value, CommandError> {
    let bytes = call.input.as_deref().filter(|b| !b.is_empty());
    let bytes = bytes
        .ok_or_else(|| CommandError::Usage("a script is wanted: --json {…}, or on standard input".into()))?;
    let text =
        std::str::from_utf8(bytes).map_err(|_| CommandError::Failed("the script is no UTF-8".into()))?;
    Script::parse(text).map(|s| s.json).map_err(CommandError::failed)
}

async fn import(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let json = given(call)?;
    let own = || json.get("name").and_then(serde_json::Value::as_str).map(str::to_owned);
    let id = call.opt("--id").map(str::to_owned).or_else(own);
    let id = id.ok_or_else(|| CommandError::Usage("--id is wanted: the script has no name".into()))?;
    let domain = call.var("domain").to_owned();
    change(s, call, Change::Import { domain, id: id.clone(), json }).await?;
    Ok(Output::text(format!("Script successfully imported with id <<\"{id}\">>")))
}

fn list(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let mut table = Table::new(["Script", "Blocks", "Version", "Description"]);
    for (id, kept) in s.library.load().scripts(call.var("domain")) {
        let blocks = kept.json.get("actions").and_then(|a| a.as_object()).map_or(0, serde_json::Map::len);
        let description = kept.json.get("description").and_then(|d| d.as_str()).unwrap_or_default();
        table.row([id.to_owned(), blocks.to_string(), kept.version.to_string(), description.to_owned()]);
    }
    Ok(Output::table(table))
}

fn export(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let id = call.get("script");
    let library = s.library.load();
    let missing = || CommandError::Failed(format!("there is no script {id}; ivr/script/list shows all"));
    let kept = library.get(call.var("domain"), id).ok_or_else(missing)?;
    let text = serde_json::to_string_pretty(&kept.json).map_err(CommandError::failed)?;
    Ok(Output::text(text).with_data(kept.json.clone()))
}

fn validate(call: &Call) -> Result<Output, CommandError> {
    let json = given(call)?;
    let blocks = json.get("actions").and_then(|a| a.as_object()).map_or(0, serde_json::Map::len);
    Ok(Output::text("ok").with_data(json!({ "blocks": blocks })))
}
