//! Supplementary services (дополнительные виды обслуживания, ДВО): which there are, what a subscriber has, and the codes
//! dialled for them (ETSI EN 300 738's scheme: `*` activates, `#` deactivates).

use chrono::{DateTime, Utc};
use domain::{Picture, state::ServiceState};
use strum::{EnumString, IntoEnumIterator, IntoStaticStr};

#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, EnumString, IntoStaticStr, strum::EnumIter, strum::Display,
)]
#[strum(serialize_all = "snake_case")]
pub enum Service {
    /// Hold (удержание вызова).
    Chold,
    /// Transfer (передача вызова).
    Ctr,
    /// Calling number shown.
    Clip,
    /// Calling name shown.
    Cnip,
    /// Calling number withheld.
    Clir,
    /// Several calls at once (мультилайн).
    Ml,
    /// Conference gathered one by one (конференц-связь с последовательным сбором).
    Conference,
    /// A meeting with roles (селекторное совещание): its manager opens it and gives the word.
    Teleconference,
    /// Do not disturb (не беспокоить).
    Dnd,
    /// Forwarding of all calls.
    Cfu,
    /// Forwarding when busy.
    Cfb,
    /// Forwarding when nobody answers.
    Cfnr,
    /// Forwarding when no phone is registered.
    Cfos,
    /// Taking over a call that rings elsewhere (перехват).
    Pickup,
    /// A script answers in place of the subscriber (персональный IVR).
    PersonalIvr,
}

impl Service {
    /// What a subscriber has without having been asked.
    fn by_default(self) -> bool {
        matches!(self, Self::Chold | Self::Ctr | Self::Clip | Self::Cnip | Self::Ml)
    }

    /// What it must be told to be of use.
    pub fn wants_number(self) -> bool {
        matches!(self, Self::Cfu | Self::Cfb | Self::Cfnr | Self::Cfos)
    }

    pub fn name(self) -> &'static str {
        self.into()
    }

    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::iter().map(Self::name)
    }

    /// How its directory in the command tree is called.
    pub fn directory(self) -> String {
        self.name().replace('_', "-")
    }
}

/// Options of a service that is active for this number: licensed, and switched on.
pub fn active(
    picture: &Picture,
    now: DateTime<Utc>,
    domain: &str,
    alias: &str,
    service: Service,
) -> Option<ServiceState> {
    if !picture.allows(service.name(), now) {
        return None;
    }
    let known = picture.domains.get(domain)?.services.get(alias).and_then(|all| all.get(service.name()));
    match known {
        Some(state) => state.active.then(|| state.clone()),
        None => service.by_default().then(ServiceState::default),
    }
}

/// What a dialled code asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Code {
    Activate(Service, Option<String>),
    Deactivate(Service),
    /// Starts a conference.
    Conference,
    /// Opens one's own meeting.
    Meeting,
    /// Joins the meeting of this manager, with its password.
    Join(String, String),
    /// Takes the call that rings at this number.
    Pickup(String),
}

/// Codes of services that are switched: code, service.
const SWITCHED: &[(&str, Service)] = &[
    ("21", Service::Cfu),
    ("22", Service::Cfb),
    ("61", Service::Cfnr),
    ("62", Service::Cfos),
    ("26", Service::Dnd),
    ("31", Service::Clir),
];

/// Reads `*21*200100#`, `#21#`, `*26#`, `*71#`, `*72#`, `*72*100*1234#`, `*8*100#`; none when it is no code.
pub fn code(dialled: &str) -> Option<Code> {
    match dialled {
        "*71#" => return Some(Code::Conference),
        "*72#" => return Some(Code::Meeting),
        _ => {}
    }
    if let Some(body) = dialled.strip_prefix("*72*").and_then(|d| d.strip_suffix('#')) {
        let (manager, password) = body.split_once('*')?;
        let given = !manager.is_empty() && !password.is_empty();
        return given.then(|| Code::Join(manager.to_owned(), password.to_owned()));
    }
    let on = dialled.starts_with('*');
    let body = dialled.strip_prefix(['*', '#'])?.strip_suffix('#')?;
    let (code, number) = match body.split_once('*') {
        Some((code, number)) => (code, Some(number).filter(|n| !n.is_empty())),
        None => (body, None),
    };
    if code == "8" {
        return number.filter(|_| on).map(|n| Code::Pickup(n.to_owned()));
    }
    let (_, service) = SWITCHED.iter().find(|(c, _)| *c == code)?;
    match (on, number) {
        (true, None) if service.wants_number() => None,
        (true, number) => Some(Code::Activate(*service, number.map(str::to_owned))),
        (false, _) => Some(Code::Deactivate(*service)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read() {
        assert_eq!(code("*71#"), Some(Code::Conference));
        assert_eq!(code("*72#"), Some(Code::Meeting));
        assert_eq!(code("*72*100*1234#"), Some(Code::Join("100".into(), "1234".into())));
        assert_eq!(code("*21*200100#"), Some(Code::Activate(Service::Cfu, Some("200100".into()))));
        assert_eq!(code("#21#"), Some(Code::Deactivate(Service::Cfu)));
        assert_eq!(code("*26#"), Some(Code::Activate(Service::Dnd, None)));
        assert_eq!(code("*8*100#"), Some(Code::Pickup("100".into())));
        for no in ["100", "*21#", "*99#", "#", "*", "", "*8#", "#8*1#", "*72*100#", "*72*100*#"] {
            assert_eq!(code(no), None, "{no}");
        }
    }
}
