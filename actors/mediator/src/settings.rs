//! Settings of a mediator (manual, "Настройка параметров посредника СОРМ"): four tabs, SSH, SORM, RADIUS and E1 streams.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use e1::{lapb::Side, x25::Circuit};
use kit::{MARK, Sealed};
use serde::{Deserialize, Serialize};
use sorm::protocol::Node;
use strum::{Display, EnumIter, EnumString, IntoEnumIterator, VariantNames};

/// E1 streams at most: the stream has three bits in a channel's number, the order's equipment has four.
pub const STREAMS: usize = 4;
/// What one VoIP submodule (SM-VP-M300) mixes at once.
const MIXED: u16 = 27;

#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, Display, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Tab {
    Ssh,
    Sorm,
    Radius,
    E1,
    Etsi,
}

/// Names of the settings.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, EnumString, EnumIter, Display, Serialize, Deserialize,
)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Property {
    Server,
    ReserveServer,
    SshPort,
    User,
    Password,
    Timeout,
    DigitZero,
    Node,
    Link,
    ListenAddress,
    TcpPort1,
    TcpPort2,
    ControlPoint,
    RtpAddress,
    RtpPort,
    ExtendedCodes,
    #[strum(serialize = "cdpn_add_8")]
    CdpnAdd8,
    #[strum(serialize = "exit_8_to_7")]
    Exit8To7,
    #[strum(serialize = "exit_88_to_7")]
    Exit88To7,
    #[strum(serialize = "cdpn_add_810")]
    CdpnAdd810,
    RadiusAddress,
    RadiusPort,
    Secret,
    Autonomous,
    Circuit,
    LogicalChannel,
    Slot1,
    Slot2,
    Handover,
    HandoverName,
    HandoverCa,
    HandoverCertificate,
    HandoverKey,
    KeepAlive,
    LiidPrefix,
    Country,
    Operator,
    NetworkElement,
}

impl Property {
    pub fn tab(self) -> Tab {
        match self {
            Self::Server | Self::ReserveServer | Self::SshPort | Self::User | Self::Password => Tab::Ssh,
            Self::RadiusAddress | Self::RadiusPort | Self::Secret => Tab::Radius,
            Self::Autonomous | Self::Circuit | Self::LogicalChannel | Self::Slot1 | Self::Slot2 => Tab::E1,
            Self::Handover
            | Self::HandoverName
            | Self::HandoverCa
            | Self::HandoverCertificate
            | Self::HandoverKey
            | Self::KeepAlive
            | Self::LiidPrefix
            | Self::Country
            | Self::Operator
            | Self::NetworkElement => Tab::Etsi,
            _ => Tab::Sorm,
        }
    }

    /// Kept sealed, shown to nobody.
    pub fn is_secret(self) -> bool {
        matches!(self, Self::Password | Self::Secret)
    }

    /// Who it talks to and with what: two persons change that.
    pub fn wants_two(self) -> bool {
        self.is_secret()
            || matches!(
                self,
                Self::ControlPoint
                    | Self::Server
                    | Self::ReserveServer
                    | Self::Handover
                    | Self::HandoverName
                    | Self::HandoverCa
                    | Self::HandoverCertificate
                    | Self::HandoverKey
            )
    }

    /// What it may be, for help and forms.
    pub fn values(self) -> &'static str {
        match self {
            Self::Server | Self::ReserveServer => "ADDRESS or -",
            Self::ListenAddress | Self::RtpAddress | Self::RadiusAddress => "ADDRESS",
            Self::ControlPoint => "ADDRESS or loopback",
            Self::SshPort | Self::TcpPort1 | Self::TcpPort2 | Self::RadiusPort => "0..65535",
            Self::RtpPort => "1..65023",
            Self::User => "NAME",
            Self::Password | Self::Secret => "SECRET",
            Self::Timeout => "0..86400",
            Self::DigitZero => "0|A",
            Self::Node => "terminal|transit|terminal_transit",
            Self::Link => "x25|tcp|none",
            Self::ExtendedCodes
            | Self::CdpnAdd8
            | Self::Exit8To7
            | Self::Exit88To7
            | Self::CdpnAdd810
            | Self::Autonomous => "true|false",
            Self::Circuit => "pvc|svc",
            Self::LogicalChannel => "1..4095",
            Self::Slot1 | Self::Slot2 => "1..31",
            Self::Handover => "ADDRESS:PORT or -",
            Self::HandoverName => "NAME in the agency's certificate",
            Self::HandoverCa => "FILE (PEM)",
            Self::HandoverCertificate | Self::HandoverKey => "FILE (PEM) or -",
            Self::KeepAlive => "0..3600",
            Self::LiidPrefix => "up to 20 letters, digits, dots and hyphens",
            Self::Country => "two letters (ISO 3166)",
            Self::Operator | Self::NetworkElement => "up to 16 letters, digits, dots and hyphens",
        }
    }
}

/// How a 0 of a number is sent to the control point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, EnumString, Display)]
pub enum Zero {
    #[default]
    #[strum(serialize = "0")]
    Zero,
    A,
}

/// What the data channels (КПД1, КПД2) run over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, EnumString, Display)]
#[strum(serialize_all = "snake_case", ascii_case_insensitive)]
pub enum Link {
    #[default]
    X25,
    Tcp,
    /// There is no control point.
    None,
}

/// Properties of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, Display, VariantNames, Serialize, Deserialize)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum OfStream {
    Enabled,
    Mode,
    Local,
    Peer,
}

/// An E1 stream towards the control point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stream {
    pub enabled: bool,
    pub mode: Side,
    /// Where its packets (SAToP) come in, and where they go.
    pub local: Option<SocketAddr>,
    pub peer: Option<SocketAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The station, and where it is looked for when that does not answer.
    pub server: Option<IpAddr>,
    pub reserve_server: Option<IpAddr>,
    pub ssh_port: u16,
    /// The domain, or the user of an aggregate.
    pub user: String,
    pub password: Option<Sealed>,
    /// Keys of the stations as they were seen first; another is refused.
    pub host_keys: BTreeMap<SocketAddr, String>,

    /// Seconds without a command after which the data channels count as faulty; 0: never (order 70, 1.5).
    pub timeout: u32,
    pub digit_zero: Zero,
    pub node: Node,
    pub link: Link,
    /// Where the control point comes in over TCP, and from where it may.
    pub listen_address: IpAddr,
    pub tcp_ports: [u16; 2],
    pub control_point: Option<IpAddr>,
    /// Where the station sends speech: channel `n` at `rtp_port + 2 n`.
    pub rtp_address: IpAddr,
    pub rtp_port: u16,
    pub extended_codes: bool,
    pub cdpn_add_8: bool,
    pub exit_8_to_7: bool,
    pub exit_88_to_7: bool,
    pub cdpn_add_810: bool,

    pub radius_address: IpAddr,
    pub radius_port: u16,
    pub secret: Option<Sealed>,

    /// One VoIP submodule serves all; otherwise each stream has two.
    pub autonomous: bool,
    pub circuit: Circuit,
    pub logical_channel: u16,
    /// Time slots of the data channels.
    pub slots: [u8; 2],
    pub streams: [Stream; STREAMS],

    /// Where events and content are handed over (ETSI TS 102 232-1).
    pub handover: Option<SocketAddr>,
    pub handover_name: String,
    /// Files: who signs the agency's certificate; ours and its key, or `-`.
    pub handover_ca: String,
    pub handover_certificate: String,
    pub handover_key: String,
    /// Seconds between keep-alives, and in which one is answered; 0: none, and what is written has arrived.
    pub keep_alive: u32,
    /// What goes before an object's number in its LIID.
    pub liid_prefix: String,
    pub country: String,
    pub operator: String,
    pub network_element: String,
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

impl Default for Settings {
    fn default() -> Self {
        Self {
            server: None,
            reserve_server: None,
            ssh_port: 7777,
            user: String::new(),
            password: None,
            host_keys: BTreeMap::new(),
            timeout: 0,
            digit_zero: Zero::Zero,
            node: Node::TerminalTransit,
            link: Link::X25,
            listen_address: LOOPBACK,
            tcp_ports: [1001, 1002],
            control_point: None,
            rtp_address: LOOPBACK,
            rtp_port: 30_000,
            extended_codes: false,
            cdpn_add_8: false,
            exit_8_to_7: false,
            exit_88_to_7: false,
            cdpn_add_810: false,
            radius_address: LOOPBACK,
            radius_port: 1813,
            secret: None,
            autonomous: true,
            circuit: Circuit::Pvc,
            logical_channel: 1,
            slots: [30, 31],
            streams: [Stream::default(); STREAMS],
            handover: None,
            handover_name: "localhost".into(),
            handover_ca: "-".into(),
            handover_certificate: "-".into(),
            handover_key: "-".into(),
            keep_alive: 30,
            liid_prefix: String::new(),
            country: "RU".into(),
            operator: "hypha".into(),
            network_element: "mediator".into(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    #[error("{0} is {wanted}, not {1:?}", wanted = .0.values())]
    Value(Property, String),
    #[error("{0} is not of this tab; info shows all")]
    Tab(Property),
    #[error("cdpn_add_8 and cdpn_add_810 exclude each other: both replace the 7 before the called number")]
    BothAdded,
    #[error("both data channels would be in time slot {0}")]
    SameSlot(u8),
    #[error("both data channels would listen on port {0}")]
    SamePort(u16),
    #[error("streams are 0 to {most}, not {0:?}", most = STREAMS - 1)]
    NoStream(String),
    #[error("{0} of a stream is {1}, not {2:?}")]
    OfStream(OfStream, &'static str, String),
}

/// An address that somebody can be reached at.
fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok().filter(|ip: &IpAddr| !ip.is_unspecified())
}

impl Settings {
    /// Sets what is no secret.
    pub fn set(&mut self, property: Property, value: &str) -> Result<(), SettingError> {
        let wrong = || SettingError::Value(property, value.to_owned());
        let flag = || value.parse::<bool>().map_err(|_| wrong());
        let port = || value.parse::<u16>().map_err(|_| wrong());
        let slot = || value.parse().ok().filter(|n| (1..=31u8).contains(n)).ok_or_else(wrong);
        // A door may stand open to every address of the machine.
        let door = || value.parse::<IpAddr>().map_err(|_| wrong());
        let word = |most: usize| {
            let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            let fits = !value.is_empty() && value.len() <= most && value.chars().all(good);
            fits.then(|| value.to_owned())
        };
        let path = || (!value.is_empty() && value.len() <= 4096).then(|| value.to_owned());
        let perhaps = |none: &str| {
            if value == none { Ok(None) } else { address(value).map(Some).ok_or_else(wrong) }
        };
        match property {
            Property::Server => self.server = perhaps("-")?,
            Property::ReserveServer => self.reserve_server = perhaps("-")?,
            Property::SshPort => self.ssh_port = port()?,
            Property::User => self.user = word(64).ok_or_else(wrong)?,
            Property::Timeout => {
                self.timeout = value.parse().ok().filter(|n| *n <= 86_400).ok_or_else(wrong)?;
            }
            Property::DigitZero => self.digit_zero = value.parse().map_err(|_| wrong())?,
            Property::Node => {
                let found = [Node::Terminal, Node::Transit, Node::TerminalTransit];
                self.node = found.into_iter().find(|n| n.to_string() == value).ok_or_else(wrong)?;
            }
            Property::Link => self.link = value.parse().map_err(|_| wrong())?,
            Property::ListenAddress => self.listen_address = door()?,
            Property::TcpPort1 | Property::TcpPort2 => {
                let mut ports = self.tcp_ports;
                ports[usize::from(property == Property::TcpPort2)] = port()?;
                if ports[0] == ports[1] && ports[0] != 0 {
                    return Err(SettingError::SamePort(ports[0]));
                }
                self.tcp_ports = ports;
            }
            Property::ControlPoint => self.control_point = perhaps("loopback")?,
            // It is told to the station, so it has to be one address.
            Property::RtpAddress => self.rtp_address = address(value).ok_or_else(wrong)?,
            Property::RtpPort => {
                // 256 channels have to fit behind it.
                let port = value.parse().ok().filter(|n| (1..=u16::MAX - 512).contains(n));
                self.rtp_port = port.ok_or_else(wrong)?;
            }
            Property::ExtendedCodes => self.extended_codes = flag()?,
            Property::CdpnAdd8 | Property::CdpnAdd810 => {
                let (on, is_8) = (flag()?, property == Property::CdpnAdd8);
                if on && (if is_8 { self.cdpn_add_810 } else { self.cdpn_add_8 }) {
                    return Err(SettingError::BothAdded);
                }
                *(if is_8 { &mut self.cdpn_add_8 } else { &mut self.cdpn_add_810 }) = on;
            }
            Property::Exit8To7 => self.exit_8_to_7 = flag()?,
            Property::Exit88To7 => self.exit_88_to_7 = flag()?,
            Property::RadiusAddress => self.radius_address = door()?,
            Property::RadiusPort => self.radius_port = port()?,
            Property::Autonomous => self.autonomous = flag()?,
            Property::Circuit => self.circuit = value.parse().map_err(|_| wrong())?,
            Property::LogicalChannel => {
                let number = value.parse().ok().filter(|n| (1..=4095u16).contains(n));
                self.logical_channel = number.ok_or_else(wrong)?;
            }
            Property::Slot1 | Property::Slot2 => {
                let mut slots = self.slots;
                slots[usize::from(property == Property::Slot2)] = slot()?;
                if slots[0] == slots[1] {
                    return Err(SettingError::SameSlot(slots[0]));
                }
                self.slots = slots;
            }
            Property::Handover => {
                self.handover = match value {
                    "-" => None,
                    text => Some(text.parse().map_err(|_| wrong())?),
                };
            }
            Property::HandoverName => self.handover_name = word(255).ok_or_else(wrong)?,
            Property::HandoverCa => self.handover_ca = path().ok_or_else(wrong)?,
            Property::HandoverCertificate => self.handover_certificate = path().ok_or_else(wrong)?,
            Property::HandoverKey => self.handover_key = path().ok_or_else(wrong)?,
            Property::KeepAlive => {
                self.keep_alive = value.parse().ok().filter(|n| *n <= 3600).ok_or_else(wrong)?;
            }
            Property::LiidPrefix if value.is_empty() => self.liid_prefix.clear(),
            Property::LiidPrefix => self.liid_prefix = word(20).ok_or_else(wrong)?,
            Property::Country => {
                let country = word(2).filter(|w| w.len() == 2 && w.chars().all(|c| c.is_ascii_uppercase()));
                self.country = country.ok_or_else(wrong)?;
            }
            Property::Operator => self.operator = word(16).ok_or_else(wrong)?,
            Property::NetworkElement => self.network_element = word(16).ok_or_else(wrong)?,
            Property::Password | Property::Secret => return Err(wrong()),
        }
        Ok(())
    }

    /// Sets a secret that has been sealed.
    pub fn set_sealed(&mut self, property: Property, sealed: Option<Sealed>) {
        match property {
            Property::Password => self.password = sealed,
            Property::Secret => self.secret = sealed,
            _ => {}
        }
    }

    pub fn set_stream(&mut self, number: &str, property: OfStream, value: &str) -> Result<(), SettingError> {
        let stream = number.parse().ok().and_then(|n: usize| self.streams.get_mut(n));
        let stream = stream.ok_or_else(|| SettingError::NoStream(number.to_owned()))?;
        let wrong = |wanted| SettingError::OfStream(property, wanted, value.to_owned());
        let socket = || match value {
            "-" => Ok(None),
            text => text.parse().map(Some).map_err(|_| wrong("ADDRESS:PORT or -")),
        };
        match property {
            OfStream::Enabled => stream.enabled = value.parse().map_err(|_| wrong("true|false"))?,
            OfStream::Mode => stream.mode = value.parse().map_err(|_| wrong("dte|dce"))?,
            OfStream::Local => stream.local = socket()?,
            OfStream::Peer => stream.peer = socket()?,
        }
        Ok(())
    }

    /// A setting as it is shown; secrets are marks.
    pub fn shown(&self, property: Property) -> String {
        let secret = |sealed: &Option<Sealed>| sealed.as_ref().map_or("", |_| MARK).to_owned();
        let perhaps = |ip: Option<IpAddr>, none: &str| ip.map_or(none.to_owned(), |ip| ip.to_string());
        match property {
            Property::Server => perhaps(self.server, "-"),
            Property::ReserveServer => perhaps(self.reserve_server, "-"),
            Property::SshPort => self.ssh_port.to_string(),
            Property::User => self.user.clone(),
            Property::Password => secret(&self.password),
            Property::Timeout => self.timeout.to_string(),
            Property::DigitZero => self.digit_zero.to_string(),
            Property::Node => self.node.to_string(),
            Property::Link => self.link.to_string(),
            Property::ListenAddress => self.listen_address.to_string(),
            Property::TcpPort1 => self.tcp_ports[0].to_string(),
            Property::TcpPort2 => self.tcp_ports[1].to_string(),
            Property::ControlPoint => perhaps(self.control_point, "loopback"),
            Property::RtpAddress => self.rtp_address.to_string(),
            Property::RtpPort => self.rtp_port.to_string(),
            Property::ExtendedCodes => self.extended_codes.to_string(),
            Property::CdpnAdd8 => self.cdpn_add_8.to_string(),
            Property::Exit8To7 => self.exit_8_to_7.to_string(),
            Property::Exit88To7 => self.exit_88_to_7.to_string(),
            Property::CdpnAdd810 => self.cdpn_add_810.to_string(),
            Property::RadiusAddress => self.radius_address.to_string(),
            Property::RadiusPort => self.radius_port.to_string(),
            Property::Secret => secret(&self.secret),
            Property::Autonomous => self.autonomous.to_string(),
            Property::Circuit => self.circuit.to_string(),
            Property::LogicalChannel => self.logical_channel.to_string(),
            Property::Slot1 => self.slots[0].to_string(),
            Property::Slot2 => self.slots[1].to_string(),
            Property::Handover => self.handover.map_or("-".to_owned(), |at| at.to_string()),
            Property::HandoverName => self.handover_name.clone(),
            Property::HandoverCa => self.handover_ca.clone(),
            Property::HandoverCertificate => self.handover_certificate.clone(),
            Property::HandoverKey => self.handover_key.clone(),
            Property::KeepAlive => self.keep_alive.to_string(),
            Property::LiidPrefix => self.liid_prefix.clone(),
            Property::Country => self.country.clone(),
            Property::Operator => self.operator.clone(),
            Property::NetworkElement => self.network_element.clone(),
        }
    }

    /// The settings of a tab.
    pub fn of(&self, tab: Tab) -> impl Iterator<Item = (Property, String)> {
        Property::iter().filter(move |p| p.tab() == tab).map(|p| (p, self.shown(p)))
    }

    /// Streams that are switched on, with where they go.
    pub fn connected(&self) -> impl Iterator<Item = (usize, Stream, SocketAddr, SocketAddr)> {
        let of = |(n, s): (usize, &Stream)| Some((n, *s, s.local?, s.peer?)).filter(|_| s.enabled);
        self.streams.iter().enumerate().filter_map(of)
    }

    /// Streams whose channels take speech: for the line, or for the handover alone.
    pub fn speaking(&self) -> impl Iterator<Item = usize> {
        let speaks =
            |s: &Stream| s.enabled && (self.handover.is_some() || s.local.is_some() && s.peer.is_some());
        self.streams.iter().enumerate().filter(move |(_, s)| speaks(s)).map(|(n, _)| n)
    }

    /// Channels that can carry both parties mixed at once.
    pub fn mixed(&self) -> u16 {
        let streams = u16::try_from(self.speaking().count()).unwrap_or(u16::MAX);
        if self.autonomous { MIXED } else { MIXED.saturating_mul(2).saturating_mul(streams) }
    }

    /// Whether the control point may come from there.
    pub fn admits(&self, ip: IpAddr) -> bool {
        self.control_point.map_or(ip.is_loopback(), |point| point == ip)
    }

    /// Whether speech and sessions of the station come from there.
    pub fn is_station(&self, ip: IpAddr) -> bool {
        self.server == Some(ip) || self.reserve_server == Some(ip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_and_shown_as_they_are_set() {
        let mut settings = Settings::default();
        for (property, good, bad) in [
            (Property::Server, "192.168.118.52", "0.0.0.0"),
            (Property::ReserveServer, "-", "server"),
            (Property::SshPort, "7778", "70000"),
            (Property::User, "voip.local", "voip local"),
            (Property::Timeout, "30", "-1"),
            (Property::DigitZero, "A", "B"),
            (Property::Node, "transit", "any"),
            (Property::Link, "tcp", "udp"),
            (Property::ListenAddress, "0.0.0.0", "*"),
            (Property::TcpPort1, "2001", "1002"),
            (Property::ControlPoint, "10.0.0.7", "::"),
            (Property::RtpAddress, "10.0.0.1", "0.0.0.0"),
            (Property::RtpPort, "20000", "65300"),
            (Property::ExtendedCodes, "true", "yes"),
            (Property::CdpnAdd8, "true", "1"),
            (Property::CdpnAdd810, "false", "true"),
            (Property::Circuit, "svc", "none"),
            (Property::LogicalChannel, "4095", "0"),
            (Property::Slot1, "16", "31"),
            (Property::Slot2, "1", "32"),
            (Property::Handover, "10.0.0.9:8883", "agency"),
            (Property::HandoverCa, "/etc/hypha/agency.pem", ""),
            (Property::KeepAlive, "5", "4000"),
            (Property::LiidPrefix, "RU-", "a b"),
            (Property::Country, "NZ", "nz"),
            (Property::Operator, "op1", ""),
            (Property::Password, "", "123"),
        ] {
            assert!(settings.set(property, bad).is_err(), "{property}");
            if good.is_empty() {
                continue;
            }
            settings.set(property, good).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(settings.shown(property), good, "{property}");
        }
        let error = settings.set(Property::DigitZero, "o").expect_err("none");
        assert_eq!(error.to_string(), "digit_zero is 0|A, not \"o\"");
        settings.set_sealed(Property::Secret, Some(Sealed("2testing123".into())));
        assert_eq!(settings.shown(Property::Secret), MARK);
        assert!(!format!("{settings:?}").contains("testing"));
    }

    #[test]
    fn every_setting_has_a_tab_and_its_own_name() {
        let all: Vec<Property> = Property::iter().collect();
        let tabs = [Tab::Ssh, Tab::Sorm, Tab::Radius, Tab::E1, Tab::Etsi];
        let settings = Settings::default();
        assert_eq!(tabs.map(|t| settings.of(t).count()).iter().sum::<usize>(), all.len());
        for property in all {
            assert_eq!(property.to_string().parse(), Ok(property));
        }
    }

    #[test]
    fn streams_are_connected_when_both_ends_are_known() {
        let mut settings = Settings::default();
        settings.set_stream("1", OfStream::Enabled, "true").expect("set");
        settings.set_stream("1", OfStream::Mode, "DCE").expect("set");
        settings.set_stream("1", OfStream::Local, "127.0.0.1:4000").expect("set");
        assert_eq!((settings.connected().count(), settings.mixed()), (0, MIXED));
        settings.set_stream("1", OfStream::Peer, "127.0.0.1:4001").expect("set");
        settings.autonomous = false;
        assert_eq!((settings.connected().count(), settings.mixed()), (1, 2 * MIXED));
        assert_eq!(settings.streams[1].mode, Side::Dce);
        assert!(settings.set_stream("4", OfStream::Enabled, "true").is_err());
        assert!(settings.set_stream("0", OfStream::Peer, "here").is_err());
    }
}
