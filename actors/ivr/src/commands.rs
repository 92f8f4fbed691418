//! `domain/<D>/ivr/script/…`.

use std::sync::Arc;

use command::{Call, Command, CommandError, DeclareError, Kind, Output, Table, Tree, with};
use kit::ledger;
use serde_json::json;

use crate::{
    actor::{Services, wall},
    library::{Change, Kept, Library, LibraryBook, NAME, Since, Version},
    mail::{self, MailChange},
    rehearsal::{Rehearsal, Spoken},
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
            "imports a script from JSON",
            "импортировать сценарий из JSON",
            with!(s, |s, call| import(&s, &call).await),
        )
        .option("--id", Kind::Text, "its name; the JSON's own id does not count", "имя сценария")
        .raw("--json", "the script, to the end of the line; - for standard input", "сценарий, до конца строки; - со стандартного ввода"),
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
        .names(scripts.clone())
        .option("--version", Kind::Text, "an earlier one; script/versions lists them", "прежняя версия"),
        Command::look(
            "domain/{domain}/ivr/script/versions",
            "lists the versions of a script that are kept",
            "версии сценария",
            with!(s, |s, call| versions(&s, &call)),
        )
        .arg("script", Kind::Text, "its name", "имя сценария")
        .names(scripts.clone()),
        Command::look(
            "domain/{domain}/ivr/script/rehearse",
            "goes through a script step by step: {\"script\": …, \"vars\": {…}, \"moves\": [\"played\", {\"key\": \"1\"}, …]}",
            "пройти сценарий по шагам, без вызова",
            with!(s, |s, call| rehearse(&s, &call)),
        )
        .raw("--json", "script, variables and moves, to the end of the line", "сценарий, переменные и события"),
        Command::look(
            "domain/{domain}/ivr/script/hear",
            "tells what a menu would understand: {\"script\": …, \"block\": \"ivr_2\", \"sound\": WAV in base64}",
            "что поймёт меню сценария из записи",
            with!(s, |s, call| hear(&s, &call).await),
        )
        .raw("--json", "script, block and sound, to the end of the line", "сценарий, блок и запись"),
        Command::look(
            "domain/{domain}/ivr/script/validate",
            "looks whether JSON is a script, without keeping it",
            "проверить сценарий, не сохраняя его",
            with!((), |_s, call| validate(&call)),
        )
        .raw("--json", "the script, to the end of the line; - for standard input", "сценарий, до конца строки; - со стандартного ввода"),
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
        Command::look(
            "domain/{domain}/voicemail/list",
            "lists messages that callers have left",
            "сообщения голосовой почты",
            with!(s, |s, call| mail(&s, &call)),
        )
        .option("--mailbox", Kind::Text, "of this number alone", "только этого номера"),
        Command::change(
            "domain/{domain}/voicemail/remove",
            "removes a message",
            "удалить сообщение голосовой почты",
            with!(s, |s, call| remove_mail(&s, &call).await),
        )
        .arg("mailbox", Kind::Text, "its number", "номер ящика")
        .arg("message", Kind::Text, "the message's number", "номер сообщения")
        .confirm(|c| format!("You are going to remove message {} of {}.", c.get("message"), c.get("mailbox"))),
    ])
}

async fn change(s: &Services, call: &Call, change: Change) -> Result<Output, CommandError> {
    ledger::change_at::<LibraryBook>(&s.node, NAME, change, call.caller.origin())
        .await
        .map_err(CommandError::failed)?;
    Ok(Output::text("ok"))
}

/// The text that came with a command.
fn text_given(call: &Call) -> Result<&str, CommandError> {
    let bytes = call.input.as_deref().filter(|b| !b.is_empty());
    let bytes = bytes.ok_or_else(|| {
        CommandError::Usage("JSON is wanted: --json {…}, or --json - and on standard input".into())
    })?;
    std::str::from_utf8(bytes).map_err(|_| CommandError::Failed("the JSON is no UTF-8".into()))
}

/// The script that came with a command.
fn given(call: &Call) -> Result<serde_json::Value, CommandError> {
    Script::parse(text_given(call)?).map(|s| s.json).map_err(CommandError::failed)
}

fn rehearse(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let rehearsal: Rehearsal = serde_json::from_str(text_given(call)?).map_err(CommandError::failed)?;
    let played = rehearsal.play(wall(&s.node)).map_err(CommandError::failed)?;
    let mut table = Table::new(["Move", "Block", "Does"]);
    for step in played["steps"].as_array().into_iter().flatten() {
        let word = |v: &serde_json::Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
        let does: Vec<String> = step["effects"].as_array().into_iter().flatten().map(word).collect();
        table.row([word(&step["move"]), word(&step["block"]), does.join("\n")]);
    }
    Ok(Output::table(table).with_data(played))
}

async fn hear(s: &Services, call: &Call) -> Result<Output, CommandError> {
    if !s.estate.picture().terms(s.node.clock().now()).asr {
        return Err(CommandError::Failed("the licence does not grant speech recognition".into()));
    }
    let spoken: Spoken = serde_json::from_str(text_given(call)?).map_err(CommandError::failed)?;
    let name = format!("rehearsal{:x}", s.node.random_id());
    let (speech, reach) = (s.speech.clone(), s.reach.clone());
    // The client of HTTP stays on one thread: this one is its own.
    let hearing = move || actix_rt::System::new().block_on(spoken.understood(&speech, &reach, &name));
    let understood = tokio::task::spawn_blocking(hearing).await.map_err(CommandError::failed)?;
    let understood = understood.map_err(CommandError::failed)?;
    let data = serde_json::to_value(&understood).map_err(CommandError::failed)?;
    Ok(Output::text(data.to_string()).with_data(data))
}

fn versions(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let library = s.library.load();
    let kept = kept(&library, call)?;
    let mut table = Table::new(["Version", "Since", "Who", "Blocks"]).numbers(&["Version", "Blocks"]);
    let now = Version { version: kept.version, json: kept.json.clone(), since: kept.since.clone() };
    for v in kept.earlier.iter().chain([&now]).rev() {
        let (at, who) =
            v.since.as_ref().map_or_else(Default::default, |s| (s.at.to_rfc3339(), s.who.clone()));
        table.row([v.version.to_string(), at, who, blocks(&v.json).to_string()]);
    }
    Ok(Output::table(table))
}

fn blocks(script: &serde_json::Value) -> usize {
    script.get("actions").and_then(|a| a.as_object()).map_or(0, serde_json::Map::len)
}

fn mail(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let mut table =
        Table::new(["Mailbox", "Message", "At", "From", "Seconds", "Heard"]).numbers(&["Seconds"]);
    let mail = s.mail.load();
    let wanted = call.opt("--mailbox");
    for (name, mailbox) in mail.of(call.var("domain")).filter(|(n, _)| wanted.is_none_or(|w| w == *n)) {
        for (id, letter) in &mailbox.letters {
            let (at, heard) = (letter.at.to_rfc3339(), letter.heard.to_string());
            let seconds = letter.seconds.to_string();
            table.row([name.to_owned(), id.to_string(), at, letter.from.clone(), seconds, heard]);
        }
    }
    Ok(Output::table(table))
}

async fn remove_mail(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let id = call.get("message").parse();
    let id =
        id.map_err(|_| CommandError::Usage("a message has a number; voicemail/list shows all".into()))?;
    let (domain, mailbox) = (call.var("domain").to_owned(), call.get("mailbox").to_owned());
    let change = MailChange::Remove { domain, mailbox, id };
    mail::change(&s.node, s.data.as_deref(), change, call.caller.origin())
        .await
        .map_err(CommandError::failed)?;
    Ok(Output::text("ok"))
}

async fn import(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let json = given(call)?;
    let own = || json.get("name").and_then(serde_json::Value::as_str).map(str::to_owned);
    let id = call.opt("--id").map(str::to_owned).or_else(own);
    let id = id.ok_or_else(|| CommandError::Usage("--id is wanted: the script has no name".into()))?;
    let domain = call.var("domain").to_owned();
    let since = Some(Since { at: s.node.clock().now(), who: call.caller.name.clone() });
    change(s, call, Change::Import { domain, id: id.clone(), json, since }).await?;
    Ok(Output::text(format!("Script successfully imported with id <<\"{id}\">>")))
}

fn list(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let mut table =
        Table::new(["Script", "Blocks", "Version", "Description"]).numbers(&["Blocks", "Version"]);
    for (id, kept) in s.library.load().scripts(call.var("domain")) {
        let blocks = blocks(&kept.json);
        let description = kept.json.get("description").and_then(|d| d.as_str()).unwrap_or_default();
        table.row([id.to_owned(), blocks.to_string(), kept.version.to_string(), description.to_owned()]);
    }
    Ok(Output::table(table))
}

fn export(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let library = s.library.load();
    let kept = kept(&library, call)?;
    let json = match call.opt("--version") {
        None => &kept.json,
        Some(version) => {
            let found = version.parse().ok().and_then(|v| kept.version(v));
            found.ok_or_else(|| {
                CommandError::Failed(format!("version {version} is not kept; script/versions lists them"))
            })?
        }
    };
    let text = serde_json::to_string_pretty(json).map_err(CommandError::failed)?;
    Ok(Output::text(text).with_data(json.clone()))
}

fn kept<'l>(library: &'l Library, call: &Call) -> Result<&'l Kept, CommandError> {
    let id = call.get("script");
    let missing = || CommandError::Failed(format!("there is no script {id}; ivr/script/list shows all"));
    library.get(call.var("domain"), id).ok_or_else(missing)
}

fn validate(call: &Call) -> Result<Output, CommandError> {
    let json = given(call)?;
    Ok(Output::text("ok").with_data(json!({ "blocks": blocks(&json) })))
}
