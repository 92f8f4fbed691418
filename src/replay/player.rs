//! Plays a script on a node in this process: one thread, virtual time, seeded identities.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use command::{Caller, Grants, Outcome, Session};
use kit::{Address, Clock, ExitReason, Node, journal::MemoryJournal, trace::Traced};
use sorm::session::Desk;
use store::KeyFile;

use super::{
    Error,
    phone::Phones,
    point,
    report::{Played, Run},
    script::{Point, Script, Step},
};
use crate::boot::{Assembly, Interception, Parts, Voice, end_of};

/// The node's address on the virtual network.
const NODE: ([u8; 4], u16) = ([10, 0, 0, 1], 5060);
/// Virtual time given to what a step sets off.
const SETTLE: Duration = Duration::from_millis(10);

pub fn play(script: &Script) -> Result<Run, Error> {
    let system = actix::System::with_tokio_rt(|| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().start_paused(true).build();
        // There is no way on without a runtime, and none to say so but this.
        runtime.unwrap_or_else(|e| panic!("no runtime: {e}"))
    });
    system.block_on(play_here(script))
}

async fn play_here(script: &Script) -> Result<Run, Error> {
    let clock = Clock::simulated(script.start);
    let node = Node::builder("ds1@ecss1").clock(clock).seed(script.seed).build();
    node.trace().record_everything();
    let mediators = sorm::courier::Collected::default();
    let vendor = ed25519_dalek::SigningKey::from_bytes(
        &[script.seed.to_le_bytes(); 4].concat().try_into().unwrap_or_default(),
    );
    let sealed: Arc<dyn kit::Vault> = Arc::new(KeyFile::ephemeral());
    let parts = Parts {
        node: node.clone(),
        journal: Arc::new(MemoryJournal::default()),
        vault: Arc::new(KeyFile::ephemeral()),
        imports: script.files(),
        host: "ecss1".into(),
        vendor_key: Some(hex::encode(vendor.verifying_key().as_bytes())),
        token: None,
        token_check: std::time::Duration::from_secs(60),
        media: Arc::new(call::media::Mute),
        files: None,
        sorm: Interception {
            journal: Arc::new(MemoryJournal::default()),
            audit: sorm::audit::Audit::none(sealed.clone(), clock),
            vault: sealed,
            courier: Arc::new(mediators.clone()),
            number: 1,
            two_persons: false,
            watcher: None,
        },
        voice: Voice::default(),
    };
    let network = sip::net::Network::default();
    let (local, nowhere) = (SocketAddr::from(NODE), std::path::PathBuf::new());
    let listen = sip::Listen {
        plain: local,
        tls: None,
        ws: None,
        wss: None,
        certificate: nowhere.clone(),
        key: nowhere,
        advertised: None,
        authorities: None,
        dns: None,
        intake: kit::intake::SipIntake::default(),
        network: Some(network.clone()),
    };
    let assembly = Assembly::new(parts)?
        .with_domains()?
        .with_sip(Some(listen), sip::Offer::default(), None)?
        .with_sorm(None)?
        .with_speech(None)?
        .with_duties()?;
    // Each phone is a host of its own.
    let hosts = std::cell::Cell::new(0u8);
    let open = move |at: Option<SocketAddr>| {
        hosts.set(hosts.get() + 1);
        network.open(at.unwrap_or(SocketAddr::from(([10, 0, 1, hosts.get()], 5060))))
    };
    let mut phones = Phones::new(local, script.seed, open, move || clock.now());
    let root = assembly.start().await?;
    let caller = Caller { name: "admin".into(), from: "replay".into(), grants: Grants::system() };
    let mut session = Session::new(assembly.tree.clone(), assembly.info(), clock, caller);
    if script.sorm {
        license(&vendor, &mut session).await?;
    }
    let points = Points { services: assembly.interception().clone(), mediators };
    let mut run = Run::new(script);
    for (i, step) in script.steps.iter().enumerate() {
        let at = clock.now();
        let (said, misses) = match (step.action(), &step.sorm) {
            (Some((phone, action)), _) => phones.play(phone, &action, step).await,
            (None, Some(point)) => points.play(point, step).await,
            (None, None) => one(step, &node, &mut session).await,
        };
        tokio::time::sleep(SETTLE).await;
        let messages: Vec<Traced> = node.trace().take_record();
        run.steps.push(Played { number: i + 1, at, step: step.clone(), said, misses, messages });
    }
    drop(phones);
    root.exit(ExitReason::Shutdown);
    end_of(&root).await;
    Ok(run)
}

/// Installs a licence that grants interception.
async fn license(vendor: &ed25519_dalek::SigningKey, session: &mut Session) -> Result<(), Error> {
    let terms = domain::licence::Terms { sorm: true, ..Default::default() };
    let licence = domain::licence::issue(&terms, vendor)?;
    let line = "cluster/storage/ds1/licence/add -";
    match session.execute_alone(line, Some(licence.into_bytes())).await {
        (Ok(_), _) => Ok(()),
        (Err(e), _) => Err(e.to_string().into()),
    }
}

/// Control points of a script.
struct Points {
    services: sorm::intercept::Services,
    mediators: sorm::courier::Collected,
}

impl Points {
    async fn play(&self, point: &Point, step: &Step) -> (String, Vec<String>) {
        let text = match &point.say {
            Some(said) => self.say(point, said).await,
            None => Ok(self.told(point)),
        };
        match text {
            Ok(text) => {
                let misses = step.expect.misses(0, &text, None);
                (text, misses)
            }
            Err(why) => (String::new(), vec![why]),
        }
    }

    /// A command, and all that is answered.
    async fn say(&self, point: &Point, said: &str) -> Result<String, String> {
        let mediator = point.mediator.parse().map_err(|e: sorm::settings::SettingError| e.to_string())?;
        let services = self.services.clone();
        let desk = match (&point.domain, &point.aggregate) {
            (Some(domain), None) => Desk::of_domain(services, domain, mediator),
            (None, Some(user)) => match Desk::of_aggregate(services, user, mediator) {
                Ok(desk) => desk,
                Err(why) => return Ok(format!("log-in refused: {why}\n")),
            },
            _ => return Err("a domain or an aggregate is wanted".into()),
        };
        let ((lines, waiting), (out, mut told)) =
            (tokio::sync::mpsc::channel(16), tokio::sync::mpsc::channel(1024));
        for line in point::lines(said, self.services.sorm)? {
            lines.try_send(line).map_err(|_| "too many commands at once")?;
        }
        drop(lines);
        desk.run(waiting, out).await.map_err(|e| e.to_string())?;
        let mut text = String::new();
        while let Some(line) = told.recv().await {
            text.push_str(&point::answer(&line));
        }
        Ok(text)
    }

    /// What a mediator has been brought; of one domain, where the step names it.
    fn told(&self, point: &Point) -> String {
        let all = self.mediators.take().into_iter();
        let of = all.filter(|(mediator, _)| mediator.to_string() == point.mediator).map(|(_, r)| r);
        point::told(of, point)
    }
}

async fn one(step: &Step, node: &Node, session: &mut Session) -> (String, Vec<String>) {
    if let Some(line) = &step.cocon {
        let (answer, outcome) = session.execute_alone(line, None).await;
        let (text, status) = match outcome {
            Outcome::Said { text, status } => (text, status),
            _ => (String::new(), 0),
        };
        let data = answer.ok().map(|a| a.to_json());
        let misses = step.expect.misses(status, &text, data.as_ref());
        return (text, misses);
    }
    if let Some(pause) = step.pause() {
        tokio::time::sleep(pause).await;
        return Default::default();
    }
    let Some(name) = step.crash.as_ref().or(step.actor.as_ref()) else { return Default::default() };
    let cell = Address::new(name).ok().and_then(|a| node.registry().find(&a));
    match cell {
        None => (String::new(), vec![format!("there is no actor {name}")]),
        Some(cell) if step.crash.is_some() => {
            cell.exit(ExitReason::Killed);
            (format!("killed pid {}\n", cell.pid()), Vec::new())
        }
        Some(cell) => {
            let seen = cell.restarts();
            let miss = step.expect.restarts.filter(|r| *r != seen);
            let misses = miss.map(|r| format!("{r} restarts were expected, {seen} were seen"));
            (format!("running, {seen} restarts\n"), misses.into_iter().collect())
        }
    }
}
