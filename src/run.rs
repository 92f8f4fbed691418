//! `hypha run`: the node as a service.

use std::{path::PathBuf, sync::Arc, time::Duration};

use cocon::Front;
use command::Grants;
use kit::{Address, ExitReason, Node, crash::CrashLog, ledger, ledger::LedgerMsg};
use store::{DataLock, KeyFile, SqliteJournal};
use tracing_subscriber::EnvFilter;

use crate::{
    boot::{Assembly, Parts, end_of},
    config::{Config, LogFormat},
};

type Error = Box<dyn std::error::Error>;

/// Runs until it is told to stop (SIGTERM, SIGINT) or its root supervisor gives up.
pub fn run(config: Config) -> Result<(), Error> {
    log(&config)?;
    let data = config.node.data.clone();
    std::fs::create_dir_all(&data)
        .map_err(|e| format!("cannot make the data directory {}: {e}", data.display()))?;
    restrict(&data)?;
    let _lock = DataLock::take(&data)?;
    actix::System::new().block_on(serve(config, data))
}

fn restrict(data: &std::path::Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    // Keys and the journal are nobody else's business.
    std::fs::set_permissions(data, std::fs::Permissions::from_mode(0o700))
        .map_err(|e| format!("cannot restrict {}: {e}", data.display()).into())
}

async fn serve(config: Config, data: PathBuf) -> Result<(), Error> {
    let threads = match config.node.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n.min(256),
    };
    let node = Node::builder(format!("{}@{}", config.node.name, config.node.host))
        .arbiters(threads)
        .crashes(CrashLog::with_file(&data.join("crashes.jsonl"))?)
        .build();
    let journal = SqliteJournal::open(&data.join("journal.db"))?;
    let imports = match config.routing.imports.as_os_str().is_empty() {
        true => data.join("imports"),
        false => config.routing.imports.clone(),
    };
    std::fs::create_dir_all(&imports)?;
    let parts = Parts {
        node: node.clone(),
        journal: Arc::new(journal.clone()),
        vault: Arc::new(KeyFile::open(&data.join("secret.key"))?),
        imports,
        host: config.node.host.clone(),
        vendor_key: Some(config.licence.vendor_key.clone()),
    };
    let assembly =
        Assembly::new(parts)?.first(store::child(Address::new("store/journal")?, journal)).with_domains()?;
    let (bound, mut listening) = tokio::sync::watch::channel(None);
    let front = Front {
        listen: config.cocon.listen,
        key: cocon::host_key(&data.join("ssh_host_ed25519_key"))?,
        tree: assembly.tree.clone(),
        info: assembly.info(),
        door: assembly.door()?,
        limit: config.cocon.connections,
        idle: Duration::from_secs(config.cocon.idle_seconds),
        bound,
    };
    let (web_bound, mut web_listening) = tokio::sync::watch::channel(None);
    let page = web::Front {
        listen: config.web.listen,
        node: node.clone(),
        tree: assembly.tree.clone(),
        info: assembly.info(),
        door: front.door.clone(),
        bound: web_bound,
    };
    let assembly = assembly.child(cocon::child(&front)?).child(web::child(&page)?);
    let mut stop = stop_signal()?;
    let root = assembly.start().await?;
    first_administrator(&node, &assembly).await?;
    let ssh = *listening.wait_for(Option::is_some).await?;
    let http = *web_listening.wait_for(Option::is_some).await?;
    if let (Some(ssh), Some(http)) = (ssh, http) {
        println!("web admin: http://{http}");
        println!("hypha is ready: ssh -p {} admin@{}", ssh.port(), ssh.ip());
    }
    let ended = tokio::select! {
        reason = end_of(&root) => reason,
        () = stop.recv() => {
            tracing::info!("stopping");
            root.exit(ExitReason::Shutdown);
            end_of(&root).await;
            return Ok(());
        }
    };
    Err(format!("the root supervisor gave up ({ended}); the crash reports are in {}", data.display()).into())
}

struct StopSignal(tokio::signal::unix::Signal, tokio::signal::unix::Signal);

impl StopSignal {
    async fn recv(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

fn stop_signal() -> std::io::Result<StopSignal> {
    use tokio::signal::unix::{SignalKind, signal};
    Ok(StopSignal(signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
}

/// The first start makes an administrator whose password is printed once and stored nowhere.
async fn first_administrator(node: &Node, assembly: &Assembly) -> Result<(), Error> {
    if !assembly.accounts.load().all.is_empty() {
        return Ok(());
    }
    let password = access::random_password();
    let command = access::AccountCommand::Add {
        name: "admin".into(),
        hash: access::hash(&password)?,
        grants: Grants::system(),
    };
    let mailbox = node.registry().lookup::<LedgerMsg<access::AccountsBook>>(&Address::new("accounts")?)?;
    ledger::change::<access::AccountsBook>(&mailbox, command, kit::journal::Origin::system()).await?;
    println!("first start: user admin, password {}", password.expose());
    println!("it is shown this once; change it with cocon/user/password");
    Ok(())
}

fn log(config: &Config) -> Result<(), Error> {
    let filter = EnvFilter::try_new(&config.log.level)
        .map_err(|e| format!("log.level {:?}: {e}", config.log.level))?;
    // Standard output is for what the operator must see; the log goes beside it.
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log.format {
        LogFormat::Text => base.with_ansi(false).init(),
        LogFormat::Json => base.json().init(),
    }
    Ok(())
}
