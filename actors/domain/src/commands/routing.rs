//! `domain/<D>/routing/…`.

use std::{path::Component, sync::Arc};

use command::{Call, Command, CommandError, Kind, Output, Table};
use serde_json::json;

use super::{change_domain, change_domain_ok, names, state, with};
use crate::{
    Services,
    decide::DomainCommand,
    routing::{
        number::{Called, Calling},
        route::{Mode, Query, route},
        show, xml,
    },
};

/// What `routing/trace` takes.
const PARAMETERS: &[&str] = &[
    "iface=",
    "cgpn.digits=",
    "cgpn.ni=",
    "cgpn.nai=",
    "cgpn.npi=",
    "cgpn.apri=",
    "cgpn.screening=",
    "cgpn.category=",
    "cdpn.digits=",
    "cdpn.ni=",
    "cdpn.nai=",
    "cdpn.npi=",
    "cdpn.inni=",
    "cdpn.incomplete=",
    "context=",
    "mode=enblock",
    "mode=overlap",
];

pub(super) fn commands(s: &Services) -> Vec<Command> {
    let contexts = || names(s, |d| d.contexts.keys().cloned().collect());
    let host = s.host.clone();
    vec![
        Command::change(
            "domain/{domain}/routing/import",
            "imports a routing context from XML",
            "импортировать контекст маршрутизации из XML",
            with!(s, |s, call| import(&s, &call).await),
        )
        .arg("host", Kind::Text, "host that has the file", "имя хоста")
        .names(Arc::new(move |_| vec![host.clone()]))
        .arg(
            "file",
            Kind::Text,
            "file name, or - for standard input",
            "имя файла или - (стандартный ввод)",
        ),
        Command::look(
            "domain/{domain}/routing/list",
            "lists the contexts",
            "список контекстов",
            with!(s, |s, call| {
                let mut table =
                    Table::new(["Context", "Number plan", "Rules", "Digitmap"]).numbers(&["Rules"]);
                for c in state(&s, &call)?.contexts.values() {
                    let digitmap = c.digitmap.as_ref().map(ToString::to_string).unwrap_or_default();
                    let np = c.np.clone().unwrap_or_default();
                    table.row([c.name.clone(), np, c.rules.len().to_string(), digitmap]);
                }
                Ok(Output::table(table))
            }),
        ),
        Command::look(
            "domain/{domain}/routing/export",
            "shows a context's XML",
            "показать XML контекста",
            with!(s, |s, call| {
                let d = state(&s, &call)?;
                let name = call.get("context");
                let context = d.contexts.get(name);
                let missing =
                    || CommandError::Failed(format!("there is no context {name:?}; routing/list shows all"));
                Ok(Output::text(&context.ok_or_else(missing)?.source))
            }),
        )
        .arg("context", Kind::Text, "its name", "имя контекста")
        .names(contexts()),
        Command::change(
            "domain/{domain}/routing/remove",
            "removes a context",
            "удалить контекст",
            with!(s, |s, call| {
                change_domain_ok(&s, &call, DomainCommand::RemoveContext(call.get("context").to_owned()))
                    .await
            }),
        )
        .arg("context", Kind::Text, "its name", "имя контекста")
        .names(contexts())
        .confirm(|c| format!("You are going to remove routing context {}.", c.get("context"))),
        Command::look(
            "domain/{domain}/routing/trace",
            "leads a call through the contexts and explains its way",
            "трассировка вызова с объяснением маршрута",
            with!(s, |s, call| trace(&s, &call)),
        )
        .arg(
            "parameters",
            Kind::Text,
            "iface=<IFACE> or cgpn.digits=<A>, cdpn.digits=<B>, [mode=overlap], [cdpn.nai=…] …",
            "iface=<IFACE> или cgpn.digits=<А>, cdpn.digits=<Б>, [mode=overlap], [cdpn.nai=…] …",
        )
        .many()
        .names(Arc::new(|_| PARAMETERS.iter().map(|p| (*p).to_owned()).collect())),
    ]
}

async fn import(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let (host, file) = (call.get("host"), call.get("file"));
    if host != s.host {
        return Err(CommandError::Failed(format!("host {host} is not of this cluster; there is {}", s.host)));
    }
    let bytes = if file == "-" {
        call.input.clone().ok_or_else(|| CommandError::Usage("nothing came on standard input".into()))?
    } else {
        read(s, file).await?
    };
    let text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        CommandError::Failed(format!("{file}: byte {at} is not UTF-8; nothing was imported"))
    })?;
    // Large contexts take a while; other commands go on meanwhile.
    let parsed =
        tokio::task::spawn_blocking(move || xml::parse(&text)).await.map_err(CommandError::failed)?;
    let context = parsed.map_err(|e| CommandError::Failed(format!("{file}: {e}; nothing was imported")))?;
    let (name, rules) = (context.name.clone(), context.rules.len());
    change_domain(s, call, DomainCommand::Import(Box::new(context))).await?;
    Ok(Output::text(format!("Context {name} imported: {rules} rules.")))
}

/// A file of the import directory, and of nowhere else.
async fn read(s: &Services, file: &str) -> Result<Vec<u8>, CommandError> {
    let path = std::path::Path::new(file);
    if file.is_empty() || path.components().any(|c| !matches!(c, Component::Normal(_))) {
        return Err(CommandError::Failed(format!("{file:?} must be a file below the import directory")));
    }
    let full = s.imports.join(path);
    let size = tokio::fs::metadata(&full).await.map(|m| m.len());
    let failed = |e: std::io::Error| CommandError::Failed(format!("cannot read {}: {e}", full.display()));
    if size.map_err(failed)? > xml::MAX_BYTES as u64 {
        return Err(CommandError::Failed(format!("{file} is larger than {} bytes", xml::MAX_BYTES)));
    }
    tokio::fs::read(&full).await.map_err(failed)
}

fn trace(s: &Services, call: &Call) -> Result<Output, CommandError> {
    let picture = s.estate.picture();
    let domain = call.var("domain");
    let d = state(s, call)?;
    let (mut a, mut b) = (Calling::default(), Called::default());
    let mut iface = None;
    let mut context = None;
    let mut mode = Mode::Enblock;
    for parameter in call.all("parameters") {
        let unknown = || {
            let all: Vec<&str> = PARAMETERS.iter().map(|p| p.split('=').next().unwrap_or(p)).collect();
            CommandError::Usage(format!(
                "{parameter:?} is no parameter of a trace; there are {}",
                all.join(", ")
            ))
        };
        let (name, value) = parameter.split_once('=').ok_or_else(unknown)?;
        fn word<T: std::str::FromStr + strum::VariantNames>(
            name: &str,
            value: &str,
        ) -> Result<T, CommandError> {
            let all =
                || CommandError::Usage(format!("{name} is one of {}, not {value:?}", T::VARIANTS.join(", ")));
            value.parse().map_err(|_| all())
        }
        let flag = || {
            value.parse().map_err(|_| CommandError::Usage(format!("{name} is true or false, not {value:?}")))
        };
        match name {
            "iface" => iface = Some(value.to_owned()),
            "context" => context = Some(value.to_owned()),
            "mode" => {
                mode = match value {
                    "enblock" => Mode::Enblock,
                    "overlap" => Mode::Overlap,
                    _ => {
                        return Err(CommandError::Usage(format!(
                            "mode is enblock or overlap, not {value:?}"
                        )));
                    }
                }
            }
            // The manual's own example spells it cgnp.
            "cgpn.digits" | "cgnp.digits" => a.digits = value.to_owned(),
            "cgpn.ni" => a.ni = word(name, value)?,
            "cgpn.nai" => a.nai = word(name, value)?,
            "cgpn.npi" => a.npi = word(name, value)?,
            "cgpn.apri" => a.apri = word(name, value)?,
            "cgpn.screening" => a.screening = word(name, value)?,
            "cgpn.incomplete" => a.incomplete = flag()?,
            "cgpn.category" => {
                let category = value.parse().ok().filter(|c| (1..=10).contains(c));
                a.category = category.ok_or_else(|| CommandError::Usage("cgpn.category is 1..10".into()))?;
            }
            "cdpn.digits" => b.digits = value.to_owned(),
            "cdpn.ni" => b.ni = word(name, value)?,
            "cdpn.nai" => b.nai = word(name, value)?,
            "cdpn.npi" => b.npi = word(name, value)?,
            "cdpn.inni" => b.inni = word(name, value)?,
            "cdpn.incomplete" => b.incomplete = flag()?,
            _ => return Err(unknown()),
        }
    }
    if b.digits.is_empty() {
        return Err(CommandError::Usage("cdpn.digits=<number> is missing: whom the call is for".into()));
    }
    if a.digits.is_empty() {
        let given = iface
            .as_deref()
            .ok_or_else(|| CommandError::Usage("say iface=<IFACE> or cgpn.digits=<number>".into()))?;
        let alias = d.aliases.values().find(|alias| d.iface(given).is_some_and(|u| u.iface == alias.iface));
        a.digits = alias.map(|alias| alias.address.clone()).ok_or_else(|| {
            CommandError::Failed(format!("interface {given} has no alias; say cgpn.digits=<number> too"))
        })?;
    }
    let iface =
        iface.or_else(|| d.aliases.get(&a.digits).map(|alias| alias.iface.clone())).unwrap_or_default();
    let begins = || {
        let of_user = d.iface(&iface).map(|u| u.context.clone());
        let of_trunk = || d.trunks.get(&iface).map(|t| t.context.clone());
        let of_bridge =
            || picture.bridges.by_iface(domain, &iface).map(|(b, end)| b.side(end).context.clone());
        of_user.or_else(of_trunk).or_else(of_bridge)
    };
    let context = context.or_else(begins).ok_or_else(|| {
        CommandError::Failed(format!(
            "neither interface {iface:?} nor number {} is of domain {domain}; say iface=… or context=…",
            a.digits
        ))
    })?;
    let at = s.node.clock().now();
    let query = Query { domain: domain.to_owned(), iface, context, a, b, mode, at, explain: true };
    let mut found = route(&picture, &query);
    if let Some(beyond) = found.cut(|domain| call.caller.grants.sees_domain(domain)) {
        let data = json!({
            "domain": query.domain, "iface": query.iface, "context": query.context,
            "from": query.a.digits, "to": query.b.digits, "trace": { "steps": found.steps }, "beyond": beyond,
        });
        let text = show::until(&query, &found, &beyond);
        return Ok(Output::text(text).with_data(data));
    }
    let data = json!({
        "domain": query.domain, "iface": query.iface, "context": query.context,
        "from": query.a.digits, "to": query.b.digits, "trace": found,
    });
    Ok(Output::text(show::text(&query, &found)).with_data(data))
}
