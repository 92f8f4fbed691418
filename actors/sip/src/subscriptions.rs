//! Subscriptions to events (RFC 6665) without IO: who watches whom, and what a watcher is to be told. Packages: `dialog`
//! (RFC 4235), `presence` (RFC 3856, PIDF), `message-summary` (RFC 3842) and `as-feature-event`, by which phones switch
//! services and show them.
//!
//! They live in memory: after a restart a phone's next refresh gets 481, and it subscribes anew (RFC 6665, 4.1.2.2).

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use call::service::Service;
use chrono::{DateTime, Utc};
use strum::{EnumString, IntoStaticStr};

use crate::transaction::Flow;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EnumString, IntoStaticStr, strum::EnumIter)]
#[strum(serialize_all = "kebab-case", ascii_case_insensitive)]
pub enum Package {
    Dialog,
    Presence,
    MessageSummary,
    AsFeatureEvent,
}

impl Package {
    /// Whether only the subscriber itself may have it.
    pub fn is_private(self) -> bool {
        matches!(self, Self::MessageSummary | Self::AsFeatureEvent)
    }
}

/// `Allow-Events`
pub const EVENTS: &str = "dialog, presence, message-summary, as-feature-event";
/// Seconds that a subscription lasts unless asked otherwise, at most, and at least.
pub const EXPIRES: u32 = 3600;
pub const LONGEST: u32 = 86_400;
pub const SHORTEST: u32 = 30;
/// Subscriptions at most: in all, and of one subscriber.
const LIMIT: usize = 100_000;
const OF_ONE: usize = 500;
/// Bytes that they keep at most: in all, and of one subscriber.
const BYTES: usize = 16 << 20;
const BYTES_OF_ONE: usize = 512 << 10;

/// What is watched: a number of a domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Watched {
    pub domain: String,
    pub alias: String,
}

/// A call of somebody who is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialog {
    pub id: String,
    /// `trying`, `early`, `confirmed`
    pub state: &'static str,
    /// It began the call.
    pub initiator: bool,
    pub remote: String,
    /// The names of its dialog, while it may be picked up.
    pub names: Option<crate::agent::DialogNames>,
}

/// What is known of somebody who is watched.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    pub registered: bool,
    pub dialogs: Vec<Dialog>,
    /// Active forwardings and where they lead; do not disturb.
    pub services: BTreeMap<&'static str, Option<String>>,
    pub messages: domain::Messages,
}

#[derive(Debug, Clone)]
pub struct Subscription {
    pub of: New,
    /// The interface that watches.
    pub watcher: String,
    /// Number of our last request.
    cseq: u32,
    version: u32,
    told: Vec<Body>,
}

/// A body and its type.
pub type Body = (&'static str, String);

/// A request to send.
#[derive(Debug, Clone)]
pub struct Notify {
    pub id: u64,
    pub of: New,
    pub cseq: u32,
    /// `Subscription-State`
    pub state: String,
    pub bodies: Vec<Body>,
}

#[derive(Debug, Default)]
pub struct Subscriptions {
    all: BTreeMap<u64, Subscription>,
    bytes: usize,
    next: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many subscriptions")]
pub struct TooMany;

impl Subscriptions {
    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub fn get(&self, id: u64) -> Option<&Subscription> {
        self.all.get(&id)
    }

    pub fn get_mut(&mut self, id: u64) -> Option<&mut Subscription> {
        self.all.get_mut(&id)
    }

    pub fn remove(&mut self, id: u64) -> Option<Subscription> {
        let gone = self.all.remove(&id)?;
        self.bytes -= gone.of.bytes();
        Some(gone)
    }

    /// Adds one; `make` is given its number, which its tag holds.
    pub fn add(&mut self, watcher: &str, make: impl FnOnce(u64) -> New) -> Result<u64, TooMany> {
        let own = || self.all.values().filter(|s| s.watcher == watcher);
        if self.all.len() >= LIMIT || own().count() >= OF_ONE {
            return Err(TooMany);
        }
        let id = self.next + 1;
        let (of, watcher) = (make(id), watcher.to_owned());
        let (bytes, mine) = (of.bytes(), own().map(|s| s.of.bytes()).sum::<usize>());
        if self.bytes + bytes > BYTES || mine + bytes > BYTES_OF_ONE {
            return Err(TooMany);
        }
        self.bytes += bytes;
        self.next = id;
        let fresh = Subscription { of, watcher, cseq: 0, version: 0, told: Vec::new() };
        self.all.insert(id, fresh);
        Ok(id)
    }

    /// What everybody is watched for, each once.
    pub fn watched(&self) -> std::collections::BTreeSet<Watched> {
        self.all.values().map(|s| s.of.watched.clone()).collect()
    }

    /// What has changed since watchers were told, and subscriptions that have ended.
    pub fn changes(&mut self, now: DateTime<Utc>, known: &BTreeMap<Watched, Known>) -> Vec<Notify> {
        let ids: Vec<u64> = self.all.keys().copied().collect();
        ids.into_iter()
            .filter_map(|id| {
                let s = self.all.get(&id)?;
                let ended = s.of.expires <= now;
                match known.get(&s.of.watched) {
                    // Whoever was watched is no more.
                    None => self.end(id, "noresource"),
                    Some(_) if ended => self.end(id, "timeout"),
                    Some(known) => self.tell(id, now, known, false),
                }
            })
            .collect()
    }

    fn end(&mut self, id: u64, reason: &str) -> Option<Notify> {
        let Subscription { of, cseq, .. } = self.remove(id)?;
        Some(Notify {
            id,
            of,
            cseq: cseq + 1,
            state: format!("terminated;reason={reason}"),
            bodies: Vec::new(),
        })
    }

    /// Tells a watcher: what has changed, or everything if `all`.
    pub fn tell(&mut self, id: u64, now: DateTime<Utc>, known: &Known, all: bool) -> Option<Notify> {
        let s = self.all.get_mut(&id)?;
        let fresh = bodies(s.of.package, &s.of.watched, known);
        let bodies: Vec<Body> = match (all, s.of.package) {
            (true, _) => fresh.clone(),
            // Each feature is told by itself.
            (false, Package::AsFeatureEvent) => {
                fresh.iter().filter(|b| !s.told.contains(b)).cloned().collect()
            }
            (false, _) if fresh == s.told => Vec::new(),
            (false, _) => fresh.clone(),
        };
        if bodies.is_empty() {
            return None;
        }
        s.told = fresh;
        let version = s.version;
        s.version += 1;
        s.cseq += 1;
        let bodies = bodies.into_iter().map(|(t, b)| (t, b.replace(VERSION, &version.to_string()))).collect();
        let left = (s.of.expires - now).num_seconds().max(0);
        let (of, cseq) = (s.of.clone(), s.cseq);
        Some(Notify { id, of, cseq, state: format!("active;expires={left}"), bodies })
    }
}

/// What a SUBSCRIBE says.
#[derive(Debug, Clone)]
pub struct New {
    pub package: Package,
    pub watched: Watched,
    pub flow: Flow,
    pub call_id: String,
    /// `From` and `To` of our requests.
    pub local: String,
    pub remote: String,
    pub target: String,
    pub routes: Vec<String>,
    /// Number of the peer's last request.
    pub remote_cseq: u32,
    pub expires: DateTime<Utc>,
}

impl New {
    /// Bytes that it keeps of the peer's words.
    fn bytes(&self) -> usize {
        let routes: usize = self.routes.iter().map(String::len).sum();
        self.call_id.len() + self.local.len() + self.remote.len() + self.target.len() + routes
    }
}

/// Stands for the number of a notification until it is sent.
const VERSION: &str = "\u{1}version\u{1}";

fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => {}
            c => out.push(c),
        }
        out
    })
}

fn bodies(package: Package, watched: &Watched, known: &Known) -> Vec<Body> {
    let entity = format!("sip:{}@{}", escape(&watched.alias), escape(&watched.domain));
    match package {
        Package::Dialog => {
            let mut xml = format!(
                "<?xml version=\"1.0\"?>\n<dialog-info xmlns=\"urn:ietf:params:xml:ns:dialog-info\" version=\"{VERSION}\" \
                 state=\"full\" entity=\"{entity}\">\n"
            );
            for d in &known.dialogs {
                let direction = if d.initiator { "initiator" } else { "recipient" };
                // Writing to memory does not fail.
                let _ = writeln!(
                    xml,
                    "<dialog id=\"{}\"{} direction=\"{direction}\"><state>{}</state><remote><identity>sip:{}@{}\
                     </identity></remote></dialog>",
                    escape(&d.id),
                    d.names.as_ref().map_or_else(String::new, |n| format!(
                        " call-id=\"{}\" local-tag=\"{}\" remote-tag=\"{}\"",
                        escape(&n.call_id),
                        escape(&n.ours),
                        escape(&n.theirs)
                    )),
                    d.state,
                    escape(&d.remote),
                    escape(&watched.domain)
                );
            }
            xml.push_str("</dialog-info>\n");
            vec![("application/dialog-info+xml", xml)]
        }
        Package::Presence => {
            let busy = known.dialogs.iter().any(|d| d.state == "confirmed");
            let (basic, activity, note) = match () {
                () if !known.registered => ("closed", None, "Offline"),
                () if known.services.contains_key("dnd") => ("open", Some("busy"), "Do not disturb"),
                () if busy => ("open", Some("on-the-phone"), "On the phone"),
                () => ("open", None, "Online"),
            };
            let person = activity.map_or(String::new(), |a| {
                format!("<dm:person id=\"p\"><rpid:activities><rpid:{a}/></rpid:activities></dm:person>\n")
            });
            let xml = format!(
                "<?xml version=\"1.0\"?>\n<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" \
                 xmlns:dm=\"urn:ietf:params:xml:ns:pidf:data-model\" xmlns:rpid=\"urn:ietf:params:xml:ns:pidf:rpid\" \
                 entity=\"{entity}\">\n<tuple id=\"t\"><status><basic>{basic}</basic></status><note>{note}</note></tuple>\n\
                 {person}</presence>\n"
            );
            vec![("application/pidf+xml", xml)]
        }
        Package::MessageSummary => {
            let domain::Messages { new, old } = known.messages;
            let waiting = if new > 0 { "yes" } else { "no" };
            let text = format!(
                "Messages-Waiting: {waiting}\r\nMessage-Account: {entity}\r\nVoice-Message: {new}/{old} (0/0)\r\n"
            );
            vec![("application/simple-message-summary", text)]
        }
        Package::AsFeatureEvent => {
            let device = escape(&watched.alias);
            let head = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
            let dnd = known.services.contains_key(Service::Dnd.name());
            let disturb = format!(
                "{head}<DoNotDisturbEvent xmlns=\"{CSTA}\"><device>{device}</device><doNotDisturbOn>{dnd}\
                 </doNotDisturbOn></DoNotDisturbEvent>\n"
            );
            let forwardings = FORWARDINGS.map(|(kind, service)| {
                let to = known.services.get(service.name());
                let number = to
                    .and_then(Option::as_deref)
                    .map_or(String::new(), |n| format!("<forwardTo>{}</forwardTo>", escape(n)));
                format!(
                    "{head}<ForwardingEvent xmlns=\"{CSTA}\"><device>{device}</device><forwardingType>{kind}\
                     </forwardingType><forwardStatus>{}</forwardStatus>{number}</ForwardingEvent>\n",
                    to.is_some()
                )
            });
            std::iter::once(disturb).chain(forwardings).map(|b| (FEATURE, b)).collect()
        }
    }
}

/// Type of a feature's body.
pub const FEATURE: &str = "application/x-as-feature-event+xml";
const CSTA: &str = "http://www.ecma-international.org/standards/ecma-323/csta/ed3";
/// Forwardings as phones name them.
const FORWARDINGS: [(&str, Service); 3] =
    [("forwardImmediate", Service::Cfu), ("forwardBusy", Service::Cfb), ("forwardNoAns", Service::Cfnr)];
/// Seconds between two rings.
const RING: Duration = Duration::from_secs(5);

/// What a phone wants switched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    pub service: Service,
    pub active: bool,
    pub options: Vec<(String, String)>,
}

/// Reads `SetDoNotDisturb` or `SetForwarding`; the error says what is wrong.
pub fn switch(body: &str) -> Result<Switch, String> {
    let document = roxmltree::Document::parse(body).map_err(|e| e.to_string())?;
    let root = document.root_element();
    let text = |name: &str| {
        let found = root.descendants().find(|n| n.tag_name().name().eq_ignore_ascii_case(name));
        found.and_then(|n| n.text()).map(str::trim).filter(|t| !t.is_empty())
    };
    let flag = |name: &str| match text(name) {
        Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        _ => Err(format!("{name} is true or false")),
    };
    match root.tag_name().name() {
        "SetDoNotDisturb" => {
            Ok(Switch { service: Service::Dnd, active: flag("doNotDisturbOn")?, options: Vec::new() })
        }
        "SetForwarding" => {
            let kind = text("forwardingType").unwrap_or("forwardImmediate");
            let known = FORWARDINGS.iter().find(|(k, _)| *k == kind);
            let (_, service) = known.ok_or_else(|| format!("forwardingType {kind} is not known"))?;
            let mut options = Vec::new();
            if let Some(number) = text("forwardDN").or(text("forwardTo")) {
                let number = number.trim_start_matches("sip:").split('@').next().unwrap_or_default();
                options.push(("number".to_owned(), number.to_owned()));
            }
            if let Some(rings) = text("ringCount").and_then(|r| r.parse::<u64>().ok()) {
                let seconds = (rings.clamp(1, 60) * RING.as_secs()).to_string();
                options.push(("timeout".to_owned(), seconds));
            }
            Ok(Switch { service: *service, active: flag("activateForward")?, options })
        }
        other => Err(format!("{other:?} is no request of a feature")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

    fn watched() -> Watched {
        Watched { domain: "d".into(), alias: "101".into() }
    }

    fn subscribed(package: Package) -> (Subscriptions, u64) {
        let mut all = Subscriptions::default();
        let flow = Flow::udp(([127, 0, 0, 1], 5060).into());
        let new = |_| New {
            package,
            watched: watched(),
            flow,
            call_id: "1".into(),
            local: String::new(),
            remote: String::new(),
            target: String::new(),
            routes: Vec::new(),
            remote_cseq: 1,
            expires: NOW + Duration::from_secs(60),
        };
        let id = all.add("100@d", new).expect("room");
        (all, id)
    }

    fn of(known: &Known) -> BTreeMap<Watched, Known> {
        [(watched(), known.clone())].into_iter().collect()
    }

    #[test]
    fn a_watcher_is_told_of_changes_only_and_of_the_end() {
        let (mut all, id) = subscribed(Package::Dialog);
        let mut known = Known::default();
        let first = all.tell(id, NOW, &known, true).expect("at first everything");
        assert!(first.bodies[0].1.contains("version=\"0\"") && first.state == "active;expires=60");
        assert!(all.changes(NOW, &of(&known)).is_empty());
        known.dialogs.push(Dialog {
            id: "1".into(),
            state: "early",
            initiator: false,
            remote: "<7>".into(),
            names: None,
        });
        let told = all.changes(NOW, &of(&known));
        assert!(told[0].bodies[0].1.contains("version=\"1\""), "{told:?}");
        assert!(
            told[0].bodies[0].1.contains("<state>early</state>") && told[0].bodies[0].1.contains("&lt;7&gt;")
        );
        assert!(roxmltree::Document::parse(&told[0].bodies[0].1).is_ok());
        let ended = all.changes(NOW + Duration::from_secs(60), &of(&known));
        assert_eq!((ended[0].state.as_str(), all.len()), ("terminated;reason=timeout", 0));
        assert_eq!([first.cseq, told[0].cseq, ended[0].cseq], [1, 2, 3], "each is a request of its own");
    }

    #[test]
    fn of_features_only_the_changed_one_is_told() {
        let (mut all, id) = subscribed(Package::AsFeatureEvent);
        let mut known = Known::default();
        assert_eq!(all.tell(id, NOW, &known, true).map(|n| n.bodies.len()), Some(4));
        known.services.insert("cfu", Some("200".into()));
        let told = all.changes(NOW, &of(&known));
        assert_eq!(told[0].bodies.len(), 1);
        assert!(told[0].bodies[0].1.contains("<forwardTo>200</forwardTo>"), "{told:?}");
    }

    #[test]
    fn presence_says_what_somebody_does() {
        let mut known = Known::default();
        let note = |known: &Known| {
            let (_, xml) = bodies(Package::Presence, &watched(), known).remove(0);
            let document = roxmltree::Document::parse(&xml).expect("XML");
            let note = document.descendants().find(|n| n.tag_name().name() == "note");
            note.and_then(|n| n.text()).expect("a note").to_owned()
        };
        assert_eq!(note(&known), "Offline");
        known.registered = true;
        assert_eq!(note(&known), "Online");
        known.dialogs.push(Dialog {
            id: "1".into(),
            state: "confirmed",
            initiator: true,
            remote: "7".into(),
            names: None,
        });
        assert_eq!(note(&known), "On the phone");
        known.services.insert("dnd", None);
        assert_eq!(note(&known), "Do not disturb");
    }

    #[test]
    fn what_a_phone_wants_switched_is_read() {
        let dnd =
            "<SetDoNotDisturb xmlns=\"x\"><device/><doNotDisturbOn>true</doNotDisturbOn></SetDoNotDisturb>";
        assert_eq!(switch(dnd), Ok(Switch { service: Service::Dnd, active: true, options: vec![] }));
        let forward = "<SetForwarding><forwardingType>forwardNoAns</forwardingType><activateForward>true</activateForward>\
                       <forwardDN>sip:200@d</forwardDN><ringCount>3</ringCount></SetForwarding>";
        let wanted = [("number", "200"), ("timeout", "15")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(
            switch(forward),
            Ok(Switch { service: Service::Cfnr, active: true, options: wanted.to_vec() })
        );
        for bad in [
            "",
            "<x/>",
            "<SetDoNotDisturb/>",
            "<SetForwarding><forwardingType>x</forwardingType></SetForwarding>",
        ] {
            assert!(switch(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_body_is_read_or_refused(body in "(<SetForwarding>)?\\PC{0,80}(</SetForwarding>)?") {
            if let Ok(switch) = switch(&body) {
                prop_assert!(body.starts_with("<SetForwarding>"), "{switch:?}");
            }
        }
    }
}
