//! `hypha run` and `hypha mediator`: the program as a service.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use cocon::{Front, Histories};
use command::Grants;
use kit::{Address, ExitReason, Node, Secret, crash::CrashLog, ledger, log::LogRing, token::Token};
use sd_notify::NotifyState;
use sorm::audit::Audit;
use speech::{OpenSpeech, synthesis::Prompts};
use store::{DataLock, KeyFile, Pkcs11Token, SqliteJournal};

use crate::{
    boot::{Assembly, House, Interception, Parts, PhoneBook, Voice, end_of},
    config::{Config, MediaConfig, SipConfig, TokenConfig},
    drain::Drain,
    inventory, log, mediator,
    metrics::Metrics,
    systemd,
};

type Error = Box<dyn std::error::Error>;

/// What one process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// A station: domains, calls, interception.
    Node,
    /// What stands between stations and a control point.
    Mediator,
}

impl Program {
    /// A file that only the other's data directory has.
    fn of_the_other(self) -> &'static str {
        match self {
            Self::Node => mediator::JOURNAL,
            Self::Mediator => "sorm.db",
        }
    }
}

/// Runs until it is told to stop (SIGTERM, SIGINT) or its root supervisor gives up.
pub fn run(config: Config, program: Program, accept_loss: bool) -> Result<(), Error> {
    let log = log::start(&config.log)?;
    let data = config.node.data.clone();
    std::fs::create_dir_all(&data)
        .map_err(|e| format!("cannot make the data directory {}: {e}", data.display()))?;
    if data.join(program.of_the_other()).exists() {
        let what = if program == Program::Node { "mediator" } else { "node" };
        return Err(format!("{} is the data directory of a {what}; choose another", data.display()).into());
    }
    restrict(&data)?;
    no_core_dumps()?;
    many_descriptors();
    let _lock = DataLock::take(&data)?;
    if accept_loss {
        tracing::error!("changes that a journal has lost are given up, as asked (--accept-loss)");
        for journal in ["journal.db", "sorm.db", mediator::JOURNAL] {
            store::accept_loss(&data.join(journal))?;
        }
    }
    actix::System::new().block_on(serve(config, data, log, program, accept_loss))
}

/// Memory holds keys and targets; what a crash leaves on disk must not.
fn no_core_dumps() -> Result<(), Error> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(|e| format!("core dumps cannot be switched off: {e}").into())
}

/// As many descriptors as the system grants: phones over TCP, RTP and the journal share them.
fn many_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(e) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(error = %e, "limit of descriptors cannot be raised");
    }
}

fn restrict(data: &std::path::Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    // Keys and the journal are nobody else's business.
    std::fs::set_permissions(data, std::fs::Permissions::from_mode(0o700))
        .map_err(|e| format!("cannot restrict {}: {e}", data.display()).into())
}

async fn serve(
    config: Config,
    data: PathBuf,
    log: Arc<LogRing>,
    program: Program,
    accept_loss: bool,
) -> Result<(), Error> {
    let metrics = Metrics::install()?;
    let threads = match config.node.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n.min(256),
    };
    let node = Node::builder(format!("{}@{}", config.node.name, config.node.host))
        .arbiters(threads)
        .crashes(CrashLog::with_file(&data.join("crashes.jsonl"))?)
        .log(log)
        .build();
    inventory::look(&data, node.alarms(), accept_loss);
    let house = match program {
        Program::Node => station(&config, &data, &node)?,
        Program::Mediator => mediator::house(&config, &data, &node)?,
    };
    open(house, &config, &data, &metrics, program).await
}

/// A journal and the key that opens it belong together: where only one is left, the other has been lost, and making it anew in
/// silence would lose what it held for good.
fn together(data: &Path, journal: &str, key: &Path, what: &str) -> Result<(), Error> {
    // The node's journal is made before interception's: where only that one is left, the other has been lost, with its key.
    let other = data.join("sorm.db");
    if journal == "journal.db" && other.exists() && !data.join(journal).exists() && !key.exists() {
        return Err(format!(
            "{} is missing, but {} is there: put it and {} back from the backup, or move the whole of {} away for a node that begins \
             anew",
            data.join(journal).display(),
            other.display(),
            key.display(),
            data.display()
        )
        .into());
    }
    let kept = |path: &Path| std::fs::metadata(path).is_ok_and(|m| m.len() > 0);
    let journal = data.join(journal);
    let lost = match (kept(&journal), kept(key)) {
        (true, false) => (key, journal.as_path()),
        (false, true) => (journal.as_path(), key),
        _ => return Ok(()),
    };
    Err(format!(
        "{} is missing or empty, but {} is there: {what} cannot be read without both. Put it back from the backup, or move \
         {} away too for a node that begins anew",
        lost.0.display(),
        lost.1.display(),
        lost.1.display()
    )
    .into())
}

/// A node with its domains, calls and interception.
fn station(config: &Config, data: &Path, node: &Node) -> Result<House, Error> {
    together(data, "journal.db", &data.join("secret.key"), "domains and their passwords")?;
    let journal = SqliteJournal::open(&data.join("journal.db"))?;
    let imports = given(&config.routing.imports).unwrap_or_else(|| data.join("imports"));
    std::fs::create_dir_all(&imports)?;
    let vault = KeyFile::open(&data.join("secret.key"))?;
    journal.prove(&vault)?;
    let parts = Parts {
        node: node.clone(),
        journal: Arc::new(journal.clone()),
        vault: Arc::new(vault),
        imports,
        host: config.node.host.clone(),
        vendor_key: Some(config.licence.vendor_key.clone()),
        token: token(&config.token).map(|t| Arc::new(t) as Arc<dyn Token>),
        token_check: Duration::from_secs(config.token.check_seconds.max(1)),
        media: Arc::new(media(&config.media, node)?),
        files: Some(data.to_owned()),
        sorm: interception(config, data, node)?,
        voice: voice(config, data)?,
    };
    let speech = speech(config, data)?;
    let assembly = Assembly::new(parts)?
        .first(store::child(Address::new("store/journal")?, journal))
        .with_domains()?
        .with_sip(Some(listen(&config.sip, config.intake.sip)), config.sip.digest, config.records.keep())?
        .with_sorm(Some(&sorm::Front {
            listen: config.sorm.listen,
            keys: cocon::host_keys(data, "sorm_host")?,
            intake: config.intake.ssh,
        }))?
        .with_phone_book(phone_book(config, data)?)?
        .with_speech(Some(&speech))?
        .with_duties()?
        .with_alarms(config.alarms.target()?, data.to_owned())?;
    Ok(assembly.into_house())
}

/// Opens the house to its operators, and stays until it is told to stop.
async fn open(
    house: House,
    config: &Config,
    data: &Path,
    metrics: &Metrics,
    program: Program,
) -> Result<(), Error> {
    let (bound, mut listening) = tokio::sync::watch::channel(None);
    let front = Front {
        listen: config.cocon.listen,
        keys: cocon::host_keys(data, "ssh_host")?,
        tree: house.tree.clone(),
        info: house.info.clone(),
        door: house.door(config.intake.ssh.limits())?,
        histories: Histories::open(&data.join("history"))?,
        limit: config.cocon.connections,
        intake: config.intake.ssh,
        idle: Duration::from_secs(config.cocon.idle_seconds),
        bound,
    };
    let proxies =
        web::Proxies { trusted: config.web.trusted_proxies.clone(), names: config.web.names.clone() };
    let http =
        httpd::Door::new(config.web.listen).limited(config.intake.http).trusting(proxies.trusted.clone());
    let mut web_listening = http.bound.subscribe();
    let page = web::Front {
        http,
        program: if program == Program::Node { web::Program::Node } else { web::Program::Mediator },
        node: house.node.clone(),
        tree: house.tree.clone(),
        info: house.info.clone(),
        door: front.door.clone(),
        metrics: metrics.page(&house.node),
        metrics_token: metrics_token(config, data)?,
        proxies,
    };
    let mut house = house
        .optional(cocon::child(&front)?)
        .optional(web::child(&page)?)
        .optional(metrics.child()?)
        .with_services()?;
    if let Some(watchdog) = systemd::watchdog()? {
        house = house.child(watchdog);
    }
    let mut stop = stop_signal()?;
    let drain = house.drain.clone();
    let root = house.start().await?;
    inventory::keep(data)?;
    first_administrator(&house, data).await?;
    // A way in that cannot be opened now is tried again; the node's work does not wait for it.
    let opens = |listening: &mut tokio::sync::watch::Receiver<Option<std::net::SocketAddr>>| {
        let mut listening = listening.clone();
        async move {
            let open = tokio::time::timeout(OPENING, listening.wait_for(Option::is_some)).await;
            open.ok().and_then(Result::ok).and_then(|at| *at)
        }
    };
    let (ssh, http) = (opens(&mut listening).await, opens(&mut web_listening).await);
    let what = if program == Program::Node { "hypha" } else { "the mediator" };
    match http {
        Some(http) => println!("web admin: http://{http}"),
        None => println!("web admin: {} cannot be opened yet; it is tried again", config.web.listen),
    }
    match ssh {
        Some(ssh) => println!("{what} is ready: ssh -p {} admin@{}", ssh.port(), ssh.ip()),
        None => {
            println!("{what} is ready, but {} cannot be opened yet; it is tried again", config.cocon.listen)
        }
    }
    systemd::tell(NotifyState::Ready);
    let emptied = async {
        match drain {
            Some(drain) => drained(&drain).await,
            None => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        reason = end_of(&root) => reason,
        () = async { tokio::select! { () = stop.recv() => {}, () = emptied => {} } } => {
            tracing::info!("stopping");
            systemd::tell(NotifyState::Stopping);
            root.exit(ExitReason::Shutdown);
            end_of(&root).await;
            return Ok(());
        }
    };
    Err(format!("the root supervisor gave up ({ended}); the crash reports are in {}", data.display()).into())
}

/// SIGUSR1 empties the node, which then ends: what an upgrade does. So does `node/drain --stop`.
async fn drained(drain: &Drain) {
    use tokio::signal::unix::{SignalKind, signal};
    let asked = async {
        match signal(SignalKind::user_defined1()) {
            Ok(mut asked) => drop(asked.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = drain.stop.notified() => return,
        () = asked => {}
    }
    tracing::info!("no new calls are taken; the node ends with the last one");
    drain.begin();
    while !drain.emptied(std::time::Duration::from_secs(3600)).await {}
}

/// How long a start waits for the operators' ways in.
const OPENING: Duration = Duration::from_secs(5);

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

/// The hardware token of the configuration, if it names one.
pub fn token(config: &TokenConfig) -> Option<Pkcs11Token> {
    (!config.module.as_os_str().is_empty()).then(|| Pkcs11Token {
        module: config.module.clone(),
        label: config.key.clone(),
        pin_file: config.pin_file.clone(),
    })
}

fn listen(config: &SipConfig, intake: kit::intake::SipIntake) -> sip::Listen {
    sip::Listen {
        plain: config.listen,
        tls: config.tls,
        ws: config.ws,
        wss: config.wss,
        certificate: config.certificate.clone(),
        key: config.key.clone(),
        advertised: Some(config.advertised.clone()).filter(|a| !a.is_empty()),
        authorities: given(&config.authorities),
        dns: config.dns,
        intake,
        network: None,
    }
}

/// The key of interception, from the token or a file. Only a start that finds nothing sealed yet may make one.
pub fn interceptions_key(config: &Config, data: &Path, journal: &str) -> Result<Arc<dyn kit::Vault>, Error> {
    let sorm = &config.sorm;
    if sorm.key_token.is_empty() {
        let own = data.join("sorm.key");
        let key = given(&sorm.key_file).unwrap_or_else(|| own.clone());
        if key == own {
            together(data, journal, &key, "objects of interception")?;
        }
        return Ok(Arc::new(KeyFile::open(&key)?));
    }
    let of_licence = token(&config.token).ok_or("[sorm] key_token wants the token's [token] module")?;
    let token = Pkcs11Token { label: sorm.key_token.clone(), ..of_licence };
    let key = token.key(!data.join(journal).exists());
    let key = key.map_err(|e| format!("interception's key cannot be had from the token: {e}"))?;
    Ok(Arc::new(KeyFile::of(&key)))
}

/// Interception keeps to itself: a journal and a key of its own, and its audit.
fn interception(config: &Config, data: &Path, node: &Node) -> Result<Interception, Error> {
    const JOURNAL: &str = "sorm.db";
    let vault = interceptions_key(config, data, JOURNAL)?;
    let (config, journal) = (&config.sorm, SqliteJournal::open_quiet(&data.join(JOURNAL))?);
    journal.prove(&*vault)?;
    Ok(Interception {
        watcher: Some(store::child(Address::new("sorm/journal")?, journal.clone())),
        journal: Arc::new(journal),
        audit: audit(data, vault.clone(), node)?,
        vault,
        courier: Arc::new(sorm::courier::Datagrams),
        number: config.number,
        two_persons: config.two_persons,
    })
}

/// Interception's audit; a chain that has vanished is told in the next one.
pub fn audit(data: &Path, vault: Arc<dyn kit::Vault>, node: &Node) -> Result<Audit, sorm::audit::AuditError> {
    let file = data.join(sorm::audit::FILE);
    let lost = inventory::was_made(data, sorm::audit::FILE) && !file.exists();
    Audit::open(&file, vault, *node.clock(), lost)
}

/// A path that somebody has set.
fn given(path: &Path) -> Option<PathBuf> {
    (!path.as_os_str().is_empty()).then(|| path.to_owned())
}

fn media(config: &MediaConfig, node: &Node) -> Result<media::Plane, media::PlaneError> {
    media::Plane::start(&media::Settings {
        address: config.address,
        advertised: config.advertised,
        second: config.second_address.map(|at| (at, config.second_advertised)),
        ports: (config.first_port, config.last_port),
        threads: config.threads.min(64),
        music: given(&config.music),
        announcements: given(&config.announcements),
        silence_threshold: config.silence_threshold,
        latching: config.latching,
        alarms: node.alarms().clone(),
    })
}

/// How scripts are heard.
fn voice(config: &Config, data: &Path) -> Result<Voice, Error> {
    let speech = &config.speech;
    let engine = ::speech::synthesis::by_name(&speech.synthesis);
    if engine.is_none() && !speech.synthesis.is_empty() {
        return Err(format!("[speech] synthesis = \"{}\" is nobody who speaks", speech.synthesis).into());
    }
    let prompts = engine.map(|e| Prompts::new(e, &data.join("speech/prompts"))).transpose()?;
    let files = given(&speech.prompts).unwrap_or_else(|| data.join("prompts"));
    let open = match (speech.remote.as_str(), given(&speech.whisper)) {
        ("", None) => OpenSpeech::Nobody,
        ("", Some(weights)) => OpenSpeech::Whisper(weights),
        (remote, _) if (8000..=48_000).contains(&speech.remote_rate) => {
            let remote = remote.parse().map_err(|e| format!("[speech] remote: {e}"))?;
            OpenSpeech::Remote(remote, speech.remote_rate)
        }
        _ => return Err("[speech] remote_rate is 8000 to 48000".into()),
    };
    let networks: Result<Vec<_>, _> = config.scripts.networks.iter().map(|n| network(n)).collect();
    let reach = ivr::Reach { networks: networks?.into(), attendant: speech.attendant };
    Ok(Voice { prompts, files, open, reach })
}

/// `192.0.2.0/24`, or one address.
pub fn network(text: &str) -> Result<ipnet::IpNet, String> {
    let wanted = || format!("an address or a network is wanted, such as \"192.0.2.0/24\", not {text:?}");
    kit::net::network(text).ok_or_else(wanted)
}

/// How soon a number of the node's own that was given a name can be asked for.
const OWN_BOOK: Duration = Duration::from_secs(10);

fn speech(config: &Config, data: &Path) -> Result<::speech::Settings, Error> {
    let speech = &config.speech;
    let door = |at| ::speech::Door::new(at).limited(config.intake.http);
    let token = speech_token(config, data)?;
    let book = match (speech.phone_book.as_str(), config.phone_book.listen) {
        ("", Some(listen)) => {
            let from = format!(
                "http://{listen}/ssw?host=book&user_agent=cisco_search&translit=false&skip_no_disp=true"
            );
            Some(::speech::PhoneBook { from, token: Some(token.clone()) })
        }
        ("", None) => None,
        (from, _) => Some(::speech::PhoneBook { from: from.to_owned(), token: None }),
    };
    let every = Duration::from_secs(speech.phone_book_seconds.max(1));
    Ok(::speech::Settings {
        acoustic: given(&speech.acoustic),
        threads: match speech.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n.min(64),
        },
        asr: speech.asr.map(door),
        attendant: speech.attendant.map(door),
        manager: speech.manager.map(door),
        words: given(&speech.words).unwrap_or_else(|| data.join("speech/words")),
        book,
        book_every: if speech.phone_book.is_empty() { every.min(OWN_BOOK) } else { every },
        records: speech.records,
        apart: true,
        data: data.to_owned(),
        token,
    })
}

/// What doors of speech ask strangers for.
fn speech_token(config: &Config, data: &Path) -> Result<Secret<String>, Error> {
    bearer_token(&config.speech.token_file, &data.join("speech.token"))
}

fn phone_book(config: &Config, data: &Path) -> Result<Option<PhoneBook>, Error> {
    let book = &config.phone_book;
    let Some(listen) = book.listen else { return Ok(None) };
    let password = |file: &Path| -> Result<Option<Secret<String>>, Error> {
        let Some(file) = given(file) else { return Ok(None) };
        let text = std::fs::read_to_string(&file)
            .map_err(|e| format!("cannot read a password from {}: {e}", file.display()))?;
        Ok(Some(Secret::new(text.trim().to_owned())))
    };
    let mut sources = std::collections::BTreeMap::new();
    if !book.sql.is_empty() {
        let password = password(&book.sql_password_file)?;
        let sql = phonebook::Sql { url: book.sql.clone(), password, query: book.sql_query.clone() };
        sources.insert("sql", phonebook::Source::Sql(sql));
    }
    if !book.ldap.is_empty() {
        let ldap = phonebook::Ldap {
            url: book.ldap.clone(),
            bind: book.ldap_bind.clone(),
            password: password(&book.ldap_password_file)?,
            base: book.ldap_base.clone(),
            filter: book.ldap_filter.clone(),
            name: book.ldap_name.clone(),
            number: book.ldap_number.clone(),
            mail: book.ldap_mail.clone(),
        };
        sources.insert("ldap", phonebook::Source::Ldap(ldap));
    }
    let guard = httpd::Guard { open: listen.ip().is_loopback(), token: speech_token(config, data)? };
    Ok(Some(PhoneBook { door: httpd::Door::new(listen).limited(config.intake.http), sources, guard }))
}

/// What `/metrics` asks for; the first start makes it.
fn metrics_token(config: &Config, data: &Path) -> Result<Secret<String>, Error> {
    bearer_token(&config.metrics.token_file, &data.join("metrics.token"))
}

/// What a door asks strangers for; the first start makes it.
fn bearer_token(wanted: &Path, own: &Path) -> Result<Secret<String>, Error> {
    let file = given(wanted).unwrap_or_else(|| own.to_owned());
    if !file.exists() {
        write_secret(&file, access::random_password().expose())?;
    }
    let token = std::fs::read_to_string(&file)
        .map_err(|e| format!("cannot read a token from {}: {e}", file.display()))?;
    match token.trim() {
        "" => Err(format!("{} is empty; remove it for a new token", file.display()).into()),
        token => Ok(Secret::new(token.to_owned())),
    }
}

/// A new file that only its owner reads; one that exists is never overwritten.
pub fn write_secret(file: &Path, secret: &str) -> Result<(), Error> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    made.and_then(|mut f| writeln!(f, "{}", secret.trim_end()))
        .map_err(|e| format!("cannot write {}: {e}", file.display()).into())
}

/// The first start makes an administrator whose password is printed once and stored nowhere; where what is printed ends in
/// systemd's journal, it goes to a file instead, for the operator to read and remove.
async fn first_administrator(house: &House, data: &Path) -> Result<(), Error> {
    if !house.accounts.load().all.is_empty() {
        return Ok(());
    }
    let password = access::random_password();
    let file = systemd::stdout_is_journal().then(|| data.join("first-password"));
    if let Some(file) = &file {
        // Left by a start that ended before the account was made.
        let _ = std::fs::remove_file(file);
        write_secret(file, password.expose())?;
    }
    let command = access::AccountCommand::Add {
        name: "admin".into(),
        hash: access::hash(&password)?,
        grants: Grants::system(),
    };
    let origin = kit::journal::Origin::system();
    ledger::change_at::<access::AccountsBook>(&house.node, "accounts", command, origin).await?;
    match file {
        None => {
            println!("first start: user admin, password {}", password.expose());
            println!("it is shown this once; change it with cocon/user/password");
        }
        Some(file) => {
            println!("first start: the password of user admin is in {}; read and remove it", file.display())
        }
    }
    Ok(())
}
