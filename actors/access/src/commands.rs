//! `cocon/user/…`.

use std::sync::Arc;

use arc_swap::ArcSwap;
use command::{Command, CommandError, DeclareError, Grants, Kind, Names, Output, Table, Tree};
use kit::{Address, Node, Secret, journal::Origin, ledger, ledger::LedgerMsg};

use crate::{AccountCommand, Accounts, accounts::AccountsBook, door::hash};

/// Shortest password, characters.
const SHORTEST: usize = 8;

/// Adds the family's commands.
pub fn register(
    tree: &mut Tree,
    node: &Node,
    published: &Arc<ArcSwap<Accounts>>,
) -> Result<(), DeclareError> {
    let names: Names = {
        let published = published.clone();
        Arc::new(move |_| published.load().all.keys().cloned().collect())
    };
    let user =
        |c: Command| c.arg("user", Kind::Text, "name of the operator", "имя оператора").names(names.clone());
    let act = |make: fn(&command::Call) -> Result<AccountCommand, CommandError>| {
        let node = node.clone();
        move |call: command::Call| {
            let node = node.clone();
            async move {
                // Hashing a password is slow by design and must not hold other actors up.
                let origin = call.caller.origin();
                let made = tokio::task::spawn_blocking(move || make(&call))
                    .await
                    .map_err(CommandError::failed)??;
                change(&node, made, origin).await.map(|()| Output::ok())
            }
        }
    };
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
                    let mut table = Table::new(["User", "Roles", "Keys"]);
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
                let [kind, key, ..] = c.all("key") else {
                    return Err(CommandError::Usage(
                        "a key in OpenSSH form is wanted: ssh-ed25519 AAAA…".into(),
                    ));
                };
                let key = usable_key(&format!("{kind} {key}"))?;
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
