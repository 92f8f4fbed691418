//! The root of the tree, in boot order.
//!
//! ```text
//! root            rest_for_one: who depends on what fell is started with it
//! ├ store/journal   watches the journal's writer
//! ├ accounts        operators
//! ├ domain-family   licence, domains, bridges
//! ├ sip             registrations, call records, (not in replays) the endpoint, calls
//! ├ sorm            interception: stations, what mediators are told, (not in replays) their door
//! ├ ivr             scripts, and those being run
//! ├ phonebook       names and numbers over HTTP (not in replays)
//! ├ speech          recognisers, transcription, the auto-attendant (not in replays)
//! ├ alarms          masks, messages to a webhook (not in replays)
//! ├ cocon           the SSH front (not in replays)
//! ├ web             the web admin (not in replays)
//! ├ metrics         keeps histograms current (not in replays)
//! └ watchdog        where systemd asks for one
//! ```

use std::{path::PathBuf, sync::Arc, time::Duration};

use access::{Accounts, Door};
use command::{SessionInfo, Tree};
use domain::{Estate, Services};
use kit::{Address, Cell, ExitReason, Node, Strategy, SupervisorSpec, Vault, journal::Journal, token::Token};

use crate::{
    commands,
    drain::{self, Drain},
};

/// What a node is made of, whether it runs or replays.
pub struct Parts {
    pub node: Node,
    pub journal: Arc<dyn Journal>,
    pub vault: Arc<dyn Vault>,
    pub imports: PathBuf,
    pub host: String,
    pub vendor_key: Option<String>,
    pub token: Option<Arc<dyn Token>>,
    pub token_check: Duration,
    pub media: Arc<dyn call::MediaPlane>,
    /// Where files of call records and recordings go.
    pub files: Option<PathBuf>,
    pub sorm: Interception,
    pub voice: Voice,
}

/// How scripts are heard, and hear.
#[derive(Default)]
pub struct Voice {
    /// None where nobody speaks.
    pub prompts: Option<speech::synthesis::Prompts>,
    /// Where files of prompts are.
    pub files: PathBuf,
    /// Who recognises any speech, beside names and phrases.
    pub open: speech::OpenSpeech,
    /// Where scripts may reach over HTTP.
    pub reach: ivr::Reach,
}

/// The phone book service, and what it reads beside the node's own numbers.
pub struct PhoneBook {
    pub door: httpd::Door,
    pub sources: std::collections::BTreeMap<&'static str, phonebook::Source>,
    pub guard: httpd::Guard,
}

/// What interception has of its own.
pub struct Interception {
    pub journal: Arc<dyn Journal>,
    pub vault: Arc<dyn Vault>,
    pub audit: sorm::audit::Audit,
    pub courier: Arc<dyn sorm::intercept::Courier>,
    /// Number of the station's interception equipment.
    pub number: u8,
    pub two_persons: bool,
    /// What watches its journal.
    pub watcher: Option<kit::ChildSpec>,
}

/// An assembled node, not started yet.
pub struct Assembly {
    pub node: Node,
    pub tree: Arc<Tree>,
    pub accounts: Arc<arc_swap::ArcSwap<Accounts>>,
    pub estate: Estate,
    calls: call::Services,
    health: sip::TrunksHealth,
    services: Services,
    sorm: sorm::intercept::Services,
    sorm_journal: Option<kit::ChildSpec>,
    speech: speech::Speech,
    ivr: ivr::Services,
    masks: alarms::Published,
    visits: access::Visits,
    drain: Drain,
    optional: Vec<kit::ChildSpec>,
    /// No call ends with them, and the node wants them from its first call on.
    duties: Vec<kit::ChildSpec>,
    root: SupervisorSpec,
}

#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error(transparent)]
    Address(#[from] kit::AddressError),
    #[error(transparent)]
    Declare(#[from] command::DeclareError),
    #[error(transparent)]
    Licence(#[from] domain::licence::LicenceError),
    #[error(transparent)]
    Speech(#[from] speech::SpeechError),
    #[error(transparent)]
    Door(#[from] access::DoorError),
    #[error("the node does not start: {0}")]
    Start(ExitReason),
}

impl Assembly {
    pub fn new(parts: Parts) -> Result<Self, BootError> {
        let Parts {
            node,
            journal,
            vault,
            imports,
            host,
            vendor_key,
            token,
            token_check,
            media,
            files,
            sorm: interception,
            voice,
        } = parts;
        let accounts: Arc<arc_swap::ArcSwap<Accounts>> = Arc::default();
        let vendor_key =
            vendor_key.filter(|k| !k.is_empty()).map(|k| domain::licence::vendor_key(&k)).transpose()?;
        let estate = Estate::default();
        let services = Services {
            node: node.clone(),
            journal: journal.clone(),
            vault,
            estate: estate.clone(),
            imports,
            host,
            vendor_key,
            token,
            token_check,
            declaring: Arc::default(),
        };
        let mut tree = Tree::default();
        commands::register(&mut tree, &node, &journal)?;
        let visits = access::Visits::default();
        let known = estate.clone();
        let domains: command::Names = Arc::new(move |_| known.picture().domains.keys().cloned().collect());
        access::register(&mut tree, &node, &accounts, &visits, Some(domains))?;
        let masks = alarms::Published::default();
        alarms::register(&mut tree, &node, &masks)?;
        domain::commands::register(&mut tree, &services)?;
        let health = sip::TrunksHealth::new(node.alarms().clone());
        sip::register(&mut tree, &node, &estate, &health)?;
        let speech = speech::Speech::new(voice.open);
        let ivr = ivr::Services {
            node: node.clone(),
            estate: estate.clone(),
            speech: speech.clone(),
            prompts: voice.prompts,
            files: voice.files,
            data: files.clone(),
            library: Arc::default(),
            mail: Arc::default(),
            reach: voice.reach,
        };
        ivr::commands::register(&mut tree, &ivr)?;
        let stations = sorm::stations::Stations::default();
        let calls = call::Services {
            node: node.clone(),
            estate: estate.clone(),
            board: call::Board::default(),
            media,
            vault: services.vault.clone(),
            witness: Arc::new(sorm::stations::Watch { stations: stations.clone(), node: node.clone() }),
            applications: Arc::new(ivr.clone()),
            files,
        };
        call::commands::register(&mut tree, &calls, &journal)?;
        let drain = Drain { node: node.clone(), board: calls.board.clone(), stop: Arc::default() };
        drain::register(&mut tree, &drain)?;
        let sorm = sorm::intercept::Services {
            node: node.clone(),
            estate: estate.clone(),
            board: calls.board.clone(),
            journal: Arc::new(sorm::journal::SealedJournal::new(
                interception.journal,
                interception.vault.clone(),
            )),
            vault: interception.vault,
            stations,
            multi: sorm::multi::Multi::default(),
            audit: interception.audit,
            courier: interception.courier,
            sorm: interception.number,
            two_persons: interception.two_persons,
        };
        sorm::commands::register(&mut tree, &sorm)?;
        let root = SupervisorSpec::new(Address::new("root")?, Strategy::RestForOne)
            .intensity(5, Duration::from_secs(30));
        let assembly = Self {
            node,
            tree: Arc::new(tree),
            accounts: accounts.clone(),
            estate,
            calls,
            health,
            services,
            sorm,
            sorm_journal: interception.watcher,
            speech,
            ivr,
            masks,
            visits,
            drain,
            optional: Vec::new(),
            duties: Vec::new(),
            root,
        };
        Ok(assembly.child(access::child(Address::new("accounts")?, journal, accounts)))
    }

    /// One more child of the root, behind those it has.
    pub fn child(mut self, child: kit::ChildSpec) -> Self {
        self.root = self.root.child(child);
        self
    }

    /// Puts a child before all others.
    pub fn first(mut self, child: kit::ChildSpec) -> Self {
        self.root.children.insert(0, child);
        self
    }

    pub fn with_domains(self) -> Result<Self, BootError> {
        let child = domain::child(&self.services)?;
        Ok(self.child(child))
    }

    /// The SIP family and calls; replays have registrations without sockets.
    pub fn with_sip(
        self,
        listen: Option<sip::Listen>,
        digest: sip::Offer,
        keep_records: Option<Duration>,
    ) -> Result<Self, BootError> {
        let s = &self.services;
        let settings = sip::Settings {
            estate: self.estate.clone(),
            journal: s.journal.clone(),
            vault: s.vault.clone(),
            listen,
            digest,
            calls: self.calls.clone(),
            health: self.health.clone(),
            keep_records,
        };
        let child = sip::child(&settings)?;
        let mut me = self.child(child);
        me.duties.extend(sip::duties(&settings)?);
        Ok(me)
    }

    /// Interception, behind the calls it looks at; replays have no door for mediators.
    pub fn with_sorm(mut self, front: Option<&sorm::Front>) -> Result<Self, BootError> {
        self.duties.push(sorm::child(&self.sorm, self.sorm_journal.take(), front)?);
        Ok(self)
    }

    /// Scripts, and (not in replays) what hears and is heard in them.
    pub fn with_speech(self, settings: Option<&speech::Settings>) -> Result<Self, BootError> {
        let journal = self.services.journal.clone();
        let scripts = ivr::child(&self.ivr, journal.clone())?;
        let heard = settings.map(|s| speech::child(&self.node, &self.estate, journal, &self.speech, s));
        let heard = heard.transpose()?;
        let mut me = self;
        me.duties.push(scripts);
        me.optional.extend(heard);
        Ok(me)
    }

    /// Puts what no call ends with behind all that calls need.
    pub fn with_duties(mut self) -> Result<Self, BootError> {
        let children = kit::optional::duties("duties", std::mem::take(&mut self.duties))?;
        Ok(children.into_iter().fold(self, Self::child))
    }

    /// Masks of alarms, their webhook, and the watch over clock and disk.
    pub fn with_alarms(mut self, webhook: Option<alarms::Target>, data: PathBuf) -> Result<Self, BootError> {
        self.optional.push(alarms::child(
            self.services.journal.clone(),
            self.masks.clone(),
            webhook,
            Some(data),
        )?);
        Ok(self)
    }

    /// The phone book service; before the attendant, who reads it.
    pub fn with_phone_book(self, book: Option<PhoneBook>) -> Result<Self, BootError> {
        let Some(PhoneBook { door, mut sources, guard }) = book else { return Ok(self) };
        sources.insert("ssw", phonebook::Source::Ssw(self.estate.clone()));
        let child =
            phonebook::child(&door, phonebook::Service::new(sources, guard, self.node.alarms().clone()))?;
        let mut me = self;
        me.optional.push(child);
        Ok(me)
    }

    /// What interception's actors share, for control points of replays.
    pub fn interception(&self) -> &sorm::intercept::Services {
        &self.sorm
    }

    pub fn info(&self) -> SessionInfo {
        let estate = self.estate.clone();
        let installation = Arc::new(move || estate.picture().licence.terms.installation.clone());
        SessionInfo { node: self.node.name().to_owned(), installation }
    }

    pub fn into_house(self) -> House {
        let info = self.info();
        let optional = self.optional;
        House {
            node: self.node,
            tree: self.tree,
            accounts: self.accounts,
            visits: self.visits,
            drain: Some(self.drain),
            info,
            root: self.root,
            optional,
        }
    }

    /// Starts the tree; the answer is its root.
    pub async fn start(&self) -> Result<Arc<Cell>, BootError> {
        self.root.clone().start_root(&self.node).await.map_err(BootError::Start)
    }
}

/// Whatever runs, with the ways in for its operators.
pub struct House {
    pub node: Node,
    pub tree: Arc<Tree>,
    pub accounts: Arc<arc_swap::ArcSwap<Accounts>>,
    pub visits: access::Visits,
    /// Empties the node, where there are calls.
    pub drain: Option<Drain>,
    pub info: SessionInfo,
    pub root: SupervisorSpec,
    /// Services that end nothing else: pages, books, recognisers, the operators' ways in.
    pub optional: Vec<kit::ChildSpec>,
}

impl House {
    /// One more child of the root, behind those it has.
    pub fn child(mut self, child: kit::ChildSpec) -> Self {
        self.root = self.root.child(child);
        self
    }

    /// One more service that the house can be without for a while.
    pub fn optional(mut self, child: kit::ChildSpec) -> Self {
        self.optional.push(child);
        self
    }

    /// The services behind everything that calls need.
    pub fn with_services(mut self) -> Result<Self, BootError> {
        let services = std::mem::take(&mut self.optional);
        let children = kit::optional::children("services", services)?;
        Ok(children.into_iter().fold(self, Self::child))
    }

    /// `limits`: how often operators' passwords may be guessed.
    pub fn door(&self, limits: kit::throttle::Limits) -> Result<Door, BootError> {
        Ok(Door::new(self.accounts.clone(), limits)?
            .alarmed(self.node.alarms().clone())
            .visited(self.visits.clone()))
    }

    /// Starts the tree; the answer is its root.
    pub async fn start(&self) -> Result<Arc<Cell>, BootError> {
        self.root.clone().start_root(&self.node).await.map_err(BootError::Start)
    }
}

/// The end of an actor.
pub async fn end_of(cell: &Cell) -> ExitReason {
    let (tx, rx) = tokio::sync::oneshot::channel();
    cell.watch(None, move |down| {
        let _ = tx.send(down.reason);
    });
    rx.await.unwrap_or(ExitReason::Killed)
}
