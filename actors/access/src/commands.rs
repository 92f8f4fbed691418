//! `cocon/user/…`.

use std::sync::Arc;

use arc_swap::ArcSwap;
use command::{Call, Command, CommandError, DeclareError, Grants, Kind, Names, Output, Table, Tree};
use kit::{Address, Node, Secret, journal::Origin, ledger, ledger::LedgerMsg};

use crate::{
    AccountCommand, Accounts, Visit, Visits,
    accounts::AccountsBook,
    door::{hash, in_turn, is_password},
};

/// Shortest password, characters.
const SHORTEST: usize = 8;
/// The command by which operators change their own password.
pub const OWN_PASSWORD: &str = "cocon/password";

/// Adds the family's commands.
pub fn register(
    tree: &mut Tree,
    node: &Node,
    published: &Arc<ArcSwap<Accounts>>,
    visits: &Visits,
    domains: Option<Names>,
) -> Result<(), DeclareError> {
    let names: Names = {
        let published = published.clone();
        Arc::new(move |_| published.load().all.keys().cloned().collect())
    };
    let user =
        |c: Command| c.arg("user", Kind::Text, "name of the operator", "имя оператора").names(names.clone());
    let act = |make: fn(&Call) -> Result<AccountCommand, CommandError>| {
        let (node, domains) = (node.clone(), domains.clone());
        move |call: Call| {
            let (node, domains) = (node.clone(), domains.clone());
            async move {
                // Hashing a password is slow by design and must not hold other actors up.
                let (origin, note) = (call.caller.origin(), unknown_domains(&call, domains.as_ref()));
                let made = in_turn(move || make(&call)).await.map_err(CommandError::failed)??;
                change(&node, made, origin)
                    .await
                    .map(|()| note.into_iter().fold(Output::ok(), Output::and_text))
            }
        }
    };
    own(tree, node, published, visits)?;
    let published = published.clone();
    tree.add([
        Command::change(
            "cocon/user/add",
            "adds an operator",
            "добавить оператора",
            act(|c| {
                let grants: Grants = c.get("roles").parse().map_err(CommandError::failed)?;
                Ok(AccountCommand::Add {
                    name: c.get("user").to_owned(),
                    hash: hashed(c.get("password"))?,
                    grants,
                })
            }),
        )
        .arg("user", Kind::Text, "name of the operator", "имя оператора")
        .arg(
            "roles",
            Kind::Text,
            "ecss-system-admin, ecss-read-only, ecss-<DOMAIN>-domain-admin, separated by commas",
            "роли через запятую: ecss-system-admin, ecss-read-only, ecss-<DOMAIN>-domain-admin",
        )
        .arg("password", Kind::Secret, "at least 8 characters", "не короче 8 символов")
        .system_only(),
        Command::look(
            "cocon/user/list",
            "lists the operators",
            "список операторов",
            move |_| {
                let accounts = published.load_full();
                async move {
                    let mut table = Table::new(["User", "Roles", "Keys"]).numbers(&["Keys"]);
                    for (name, a) in &accounts.all {
                        table.row([name.clone(), a.grants.to_string(), a.keys.len().to_string()]);
                    }
                    Ok(Output::table(table))
                }
            },
        )
        .system_only(),
        user(Command::change(
            "cocon/user/remove",
            "removes an operator",
            "удалить оператора",
            act(|c| Ok(AccountCommand::Remove(c.get("user").to_owned()))),
        ))
        .system_only()
        .confirm(|c| format!("You are going to remove the operator {}.", c.get("user"))),
        user(Command::change(
            "cocon/user/password",
            "changes a password",
            "сменить пароль",
            act(|c| {
                Ok(AccountCommand::ChangePassword {
                    name: c.get("user").to_owned(),
                    hash: hashed(c.get("password"))?,
                })
            }),
        ))
        .arg("password", Kind::Secret, "at least 8 characters", "не короче 8 символов")
        .system_only(),
        user(Command::change(
            "cocon/user/roles",
            "changes the roles",
            "сменить роли",
            act(|c| {
                let grants = c.get("roles").parse().map_err(CommandError::failed)?;
                Ok(AccountCommand::ChangeRoles { name: c.get("user").to_owned(), grants })
            }),
        ))
        .arg("roles", Kind::Text, "separated by commas", "через запятую")
        .system_only(),
        user(Command::change(
            "cocon/user/key-add",
            "adds an SSH public key",
            "добавить ключ SSH",
            act(|c| {
                let key = given_key(c)?;
                Ok(AccountCommand::AddKey { name: c.get("user").to_owned(), key })
            }),
        ))
        .arg("key", Kind::Text, "ssh-ed25519 AAAA… [comment]", "ssh-ed25519 AAAA… [комментарий]")
        .many()
        .system_only(),
        user(Command::change(
            "cocon/user/keys-remove",
            "removes all SSH keys",
            "удалить ключи SSH",
            act(|c| Ok(AccountCommand::RemoveKeys(c.get("user").to_owned()))),
        ))
        .system_only(),
    ])
}

/// A role for a domain that is not there may be meant for one that comes, or be a typing error: it is taken, and said.
fn unknown_domains(call: &Call, domains: Option<&Names>) -> Option<String> {
    let known = domains?(call);
    let grants: Grants = call.opt("roles")?.parse().ok()?;
    let missing: Vec<String> = grants.domains.into_iter().filter(|d| !known.contains(d)).collect();
    (!missing.is_empty()).then(|| format!("warning: there is no domain {} yet", missing.join(", ")))
}

/// Commands on the caller's own account, for every operator.
fn own(
    tree: &mut Tree,
    node: &Node,
    published: &Arc<ArcSwap<Accounts>>,
    visits: &Visits,
) -> Result<(), DeclareError> {
    let (changing, adding, removing) = (node.clone(), node.clone(), node.clone());
    let (accounts, keys, kept) = (published.clone(), published.clone(), published.clone());
    let (listed, ended) = (visits.clone(), visits.clone());
    tree.add([
        Command::change(
            OWN_PASSWORD,
            "changes your own password",
            "сменить свой пароль",
            move |call| {
                let (node, accounts) = (changing.clone(), accounts.clone());
                async move {
                    let name = call.caller.name.clone();
                    let known = accounts.load().all.get(&name).map(|a| a.hash.as_str().into());
                    let old = Secret::new(call.get("old").to_owned());
                    let fits = is_password(known.unwrap_or_default(), old).await;
                    if !fits.map_err(CommandError::failed)? {
                        return Err(CommandError::Denied("the old password is another one".into()));
                    }
                    let new = call.get("new").to_owned();
                    let hash = in_turn(move || hashed(&new)).await;
                    let hash = hash.map_err(CommandError::failed)??;
                    let command = AccountCommand::ChangePassword { name, hash };
                    change(&node, command, call.caller.origin()).await?;
                    Ok(Output::text("ok; your other sessions are over"))
                }
            },
        )
        .arg("old", Kind::Secret, "the password so far", "прежний пароль")
        .arg("new", Kind::Secret, "at least 8 characters", "не короче 8 символов")
        .for_everyone(),
        Command::look("cocon/key/list", "lists your own SSH keys", "свои ключи SSH", move |call| {
            let accounts = keys.load_full();
            async move {
                let mut table = Table::new(["Number", "Kind", "Fingerprint"]).numbers(&["Number"]);
                let own = accounts.all.get(&call.caller.name).map(|a| a.keys.clone()).unwrap_or_default();
                for (i, key) in own.iter().enumerate() {
                    let kind = key.split(' ').next().unwrap_or_default();
                    table.row([&(i + 1).to_string(), kind, &fingerprint(key)]);
                }
                Ok(Output::table(table))
            }
        })
        .for_everyone(),
        Command::change(
            "cocon/key/add",
            "adds an SSH key of yours",
            "добавить свой ключ SSH",
            move |call| {
                let node = adding.clone();
                async move {
                    let key = given_key(&call)?;
                    let command = AccountCommand::AddKey { name: call.caller.name.clone(), key };
                    change(&node, command, call.caller.origin()).await.map(|()| Output::ok())
                }
            },
        )
        .arg("key", Kind::Text, "ssh-ed25519 AAAA… [comment]", "ssh-ed25519 AAAA… [комментарий]")
        .many()
        .for_everyone(),
        Command::change(
            "cocon/key/remove",
            "removes an SSH key of yours",
            "удалить свой ключ SSH",
            move |call| {
                let (node, accounts) = (removing.clone(), kept.clone());
                async move {
                    let name = call.caller.name.clone();
                    let number =
                        call.number("number").and_then(|n| usize::try_from(n).ok()).unwrap_or_default();
                    let key = accounts
                        .load()
                        .all
                        .get(&name)
                        .and_then(|a| a.keys.get(number.wrapping_sub(1)).cloned());
                    let none = || {
                        CommandError::Failed(format!("you have no key {number}; cocon/key/list shows all"))
                    };
                    let command = AccountCommand::RemoveKey { name, key: key.ok_or_else(none)? };
                    change(&node, command, call.caller.origin()).await.map(|()| Output::ok())
                }
            },
        )
        .arg("number", Kind::Number(1, 1000), "its number in the list", "номер в списке")
        .for_everyone(),
        Command::look(
            "cocon/session/list",
            "lists your own sessions; for system administrators, all",
            "свои сеансы; для системных администраторов все",
            move |call| {
                let visits = listed.clone();
                async move {
                    let seen = |v: &Visit| call.caller.grants.system || v.user == call.caller.name;
                    let all: Vec<Visit> = visits.all().into_iter().filter(seen).collect();
                    let mut table = Table::new(["Session", "User", "From", "Since"]).numbers(&["Session"]);
                    for v in &all {
                        let since = v.since.format("%d.%m.%Y %H:%M:%S").to_string();
                        table.row([&v.id.to_string(), &v.user, &v.from, &since]);
                    }
                    Ok(Output::table(table).with_data(serde_json::json!(all)))
                }
            },
        )
        .for_everyone(),
        Command::change("cocon/session/end", "ends a session", "завершить сеанс", move |call| {
            let visits = ended.clone();
            async move {
                let wanted = call.number("session").unwrap_or_default();
                let may = |v: &Visit| call.caller.grants.system || v.user == call.caller.name;
                match visits.end(|v| v.id == wanted && may(v)) {
                    0 => Err(CommandError::Failed(format!(
                        "there is no session {wanted}; cocon/session/list shows all"
                    ))),
                    _ => Ok(Output::ok()),
                }
            }
        })
        .arg("session", Kind::Number(1, u64::MAX), "its number in the list", "номер в списке")
        .for_everyone(),
    ])
}

/// As `ssh-keygen -l` shows it.
fn fingerprint(key: &str) -> String {
    let key = russh::keys::PublicKey::from_openssh(key);
    key.map(|k| k.fingerprint(russh::keys::HashAlg::Sha256).to_string()).unwrap_or_default()
}

/// The words of a key in OpenSSH form, without its comment.
fn given_key(call: &Call) -> Result<String, CommandError> {
    let [kind, key, ..] = call.all("key") else {
        return Err(CommandError::Usage("a key in OpenSSH form is wanted: ssh-ed25519 AAAA…".into()));
    };
    usable_key(&format!("{kind} {key}"))
}

/// A key in OpenSSH form that this door can check; what it could never let in is refused here.
fn usable_key(text: &str) -> Result<String, CommandError> {
    use russh::keys::{Algorithm, PublicKey};
    let usage = |text: String| Err(CommandError::Usage(text));
    let key = PublicKey::from_openssh(text)
        .map_err(|e| CommandError::Usage(format!("not a key in OpenSSH form: {e}")))?;
    match key.algorithm() {
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } => {}
        Algorithm::Rsa { .. } => {
            let bits = key.key_data().rsa().map_or(0, |k| k.n().as_bytes().len().saturating_sub(1) * 8);
            if !(2040..=8192).contains(&bits) {
                return usage(format!("an RSA key of {bits} bits is not taken: 2048 to 8192"));
            }
        }
        other => return usage(format!("keys of the kind {other} are not taken: ed25519, ecdsa or rsa")),
    }
    Ok(text.to_owned())
}

fn hashed(password: &str) -> Result<String, CommandError> {
    if password.chars().count() < SHORTEST {
        return Err(CommandError::Failed(format!("a password has at least {SHORTEST} characters")));
    }
    hash(&Secret::new(password.to_owned())).map_err(CommandError::failed)
}

async fn change(node: &Node, command: AccountCommand, origin: Origin) -> Result<(), CommandError> {
    let address = Address::new("accounts").map_err(CommandError::failed)?;
    let mailbox =
        node.registry().lookup::<LedgerMsg<AccountsBook>>(&address).map_err(CommandError::failed)?;
    ledger::change::<AccountsBook>(&mailbox, command, origin).await.map_err(CommandError::failed)
}
