//! The configuration file (TOML). Every key has a default; `hypha config --print` writes them all.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use kit::intake::{HttpIntake, SipIntake, SshIntake};
use serde::{Deserialize, Serialize};

use crate::validate::{self, Wrong};

/// What `hypha config --print` prints: the defaults, explained.
pub const DEFAULTS: &str = r#"# Hypha configuration. Every key is shown with its default; leave out what suits you.

[node]
# The node's and its host's names, as prompts, trailers and routing/import know them.
name = "ds1"
host = "ecss1"
# Where the journal, keys, crash reports and imports live.
data = "/var/lib/hypha"
# Threads for actors; 0 is one for each core.
threads = 0

[cocon]
# CoCon over SSH. Loopback until you choose otherwise.
listen = "127.0.0.1:8023"
# Connections at the same time.
connections = 64
# Seconds after which a silent session ends.
idle_seconds = 3600

[sip]
# SIP over UDP and TCP. Loopback until you choose otherwise.
listen = "127.0.0.1:5060"
# SIP over TLS, such as "127.0.0.1:5061", and over WebSocket (RFC 7118) without and with TLS; empty: none.
tls = ""
ws = ""
wss = ""
# Certificate (chain) and key for TLS, files in PEM; they are read again when the SIP endpoint starts again.
certificate = ""
key = ""
# Our address as peers outside know it, where it is translated on the way (NAT): an address or a host name; empty: as it is.
advertised = ""
# Whose word is taken for neighbours over TLS: a file of certificates in PEM; empty: the system's authorities.
authorities = ""
# A name server for neighbours' names, such as "127.0.0.1:53"; empty: the system's.
dns = ""
# Digest algorithms offered to phones: md5, sha-256, or both (RFC 8760; phones that know only MD5 may give up on both).
digest = "md5"

[media]
# Address that RTP is sent from and received at; phones are told it.
address = "127.0.0.1"
# That address as peers outside know it, where it is translated on the way (NAT); empty: as it is.
advertised = ""
# The same of the other family, such as an IPv6 address beside an IPv4 one (dual stack): taken for peers that have only that
# one; empty: one family.
second_address = ""
second_advertised = ""
# Ports of each address; each party of a call takes two.
first_port = 12000
last_port = 20047
# Threads where packets flow; actors never wait for them.
threads = 1
# A WAV file (PCM, 16 bits) for those on hold; empty: a melody of our own.
music = ""
# A directory of announcements to callers whose calls fail: 17.wav is heard before cause 17 (busy); empty: none.
announcements = ""
# Level below which there is silence, dBFS: a silent party of a conference is not mixed in.
silence_threshold = -30
# Sources whose packets are believed: the host that the description names (strict); also the one that signalling comes from
# (signalling), as of a phone behind a NAT; also the first that sends (any), where media comes from hosts of its own.
latching = "signalling"

[records]
# Days that call records are kept in the journal; 0: for ever. Files of groups (cdr/add_cdr_group) stay.
keep_days = 0

[sorm]
# Where mediators log in over SSH, their user the domain's name. Loopback until you choose otherwise.
listen = "127.0.0.1:7777"
# Number of the station's interception equipment, 0 to 255, as the control point has it.
number = 1
# Whether passwords, secrets and mediators are changed by two persons: one proposes, another approves.
two_persons = true
# File with the key of interception; empty is sorm.key in the data directory, made at the first start. Without it no
# target and no audit entry can be read again.
key_file = ""
# Label of that key on the hardware token ([token] module and pin_file), instead of the file; the first start makes it.
key_token = ""

[speech]
# Transcription over HTTP (curl … /trans/vtt -T file.wav), and the auto-attendant; empty: none. Loopback until you choose
# otherwise: then they ask for the token.
asr = "127.0.0.1:9000"
attendant = "127.0.0.1:9010"
# The manager of recognisers over HTTP: their state, instances, new words; empty: none.
manager = "127.0.0.1:9011"
# File with that bearer token; empty is speech.token in the data directory, made at the first start.
token_file = ""
# Threads of each recogniser; 0 is one for each core.
threads = 1
# Directory of an acoustic model for 8000 Hz as Sphinx has it; empty: the program's own, for Russian.
acoustic = ""
# Weights of Whisper in ggml's format, as ops/speech-weights makes them; empty: names and phrases are recognised, other
# speech is not.
whisper = ""
# Another's recogniser of any speech in Whisper's place: kaldi://HOST:PORT (Kaldi's TCP server) or ws://HOST:PORT
# (vosk-server); empty: none. And the sampling rate it wants.
remote = ""
remote_rate = 8000
# Directory of your own words (.dic, as Sphinx has them) and grammars (.gram, JSGF), read again when they change; empty
# is speech/words in the data directory.
words = ""
# The attendant's phone book, XML with DirectoryEntry elements: a file, or http://…, such as a source of the service below;
# empty: the node's own numbers from there.
phone_book = ""
# Seconds between two readings of it; the node's own numbers are read every ten seconds at least.
phone_book_seconds = 300
# Pieces of speech the attendant keeps to be listened to; the oldest go.
records = 1000
# Who speaks texts of IVR scripts: festival, espeak-ng, espeak-ng:VOICE, or http://… (text in, WAV out); empty: nobody.
synthesis = ""
# Directory of prompts that scripts play from files; empty is prompts/ in the data directory.
prompts = ""

[scripts]
# Networks inside (loopback, private, link-local) that scripts may reach over HTTP, such as "192.168.7.0/24"; those outside they may.
networks = []

[intake.sip]
# What strangers may take of SIP's doors. Streams at once (a third of the process's descriptors at most), and of one address
# (of IPv6, a /64).
connections = 20000
connections_of_one = 1000
# Longest message, and longest header before its end must have come, bytes.
message_bytes = 65535
header_bytes = 32768
# Seconds: TLS or WebSocket to begin; a message from its first byte to its last, and a connection to its first message; without
# a message or a keep-alive; what is written left unread.
handshake_seconds = 10
message_seconds = 20
idle_seconds = 600
unread_seconds = 10
# Registrations being kept at once; more get 503.
registering = 10000
# Wrong passwords a minute: of a user at one address, and of one user, or one address, where none has been right.
guesses = 20
guesses_of_strangers = 200

[intake.http]
# Of each service over HTTP: connections at once, and of one address.
connections = 1024
connections_of_one = 128
# Seconds until a request's header has come; that its body may pause; that a body may take, and bytes for each second beyond.
header_seconds = 10
body_pause_seconds = 10
body_seconds = 20
body_bytes_a_second = 10000

[intake.ssh]
# Of CoCon and of the mediators' doors: connections that have not logged in, and of one address; the oldest makes room.
strangers = 48
strangers_of_one = 8
# Seconds until keys are exchanged, and then until the log-in; keys and passwords that a connection may offer.
handshake_seconds = 20
log_in_seconds = 60
offers = 32
# Wrong passwords a minute, as above.
guesses = 5
guesses_of_strangers = 50

[phone_book]
# The phone book service over HTTP, for phones and the attendant: /ssw is the node's own numbers with their display_name;
# empty: none. Loopback until you choose otherwise: then it asks for speech.token.
listen = "127.0.0.1:9990"
# A database (/sql): mysql://USER@HOST:PORT/DATABASE, the file of its password, and a query for name, number and,
# where there is a third column, mail; empty: none.
sql = ""
sql_password_file = ""
sql_query = "SELECT name, number FROM phone_book"
# A directory (/ldap): ldap://HOST:PORT or ldaps://…, who asks and the file of the password, where and what is looked
# for (RFC 4515), and the attributes of name, number and mail; empty: none.
ldap = ""
ldap_bind = ""
ldap_password_file = ""
ldap_base = ""
ldap_filter = "(telephoneNumber=*)"
ldap_name = "cn"
ldap_number = "telephoneNumber"
ldap_mail = "mail"

[web]
# The web admin over HTTP. Loopback until you choose otherwise; put a TLS proxy before it then.
listen = "127.0.0.1:8080"
# Addresses of proxies before it: what they say of the browser (X-Forwarded-For, -Proto, -Host) is believed.
trusted_proxies = []
# Names by which browsers know it behind a proxy that does not pass the Host header on, such as "admin.example.com".
names = []

[routing]
# Where routing/import reads files; empty is imports/ in the data directory.
imports = ""

[licence]
# The licence vendor's Ed25519 public key, 64 hex digits; empty: no licence can be installed.
vendor_key = ""

[token]
# PKCS#11 module of the hardware token a licence may be bound to, such as /usr/lib/librtpkcs11ecp.so; empty: no token.
module = ""
# Label of its key pair.
key = "hypha"
# File that holds the token's user PIN.
pin_file = ""
# Seconds between checks that the token is there and the licence still valid.
check_seconds = 60

[alarms]
# A webhook that is told of every alarm raised and cleared, one POST of JSON each: http://HOST[:PORT]/PATH; empty: none.
webhook = ""

[metrics]
# File with the bearer token that /metrics of the web admin asks for; empty is metrics.token in the data directory, made
# at the first start.
token_file = ""

[log]
# stderr, stdout, or journal (systemd's, with every field).
to = "stderr"
# error, warn, info, debug, trace, or a filter such as "info,kit=debug".
level = "info"
# text or json; for stderr and stdout.
format = "text"
"#;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    pub node: NodeConfig,
    pub cocon: CoconConfig,
    pub sip: SipConfig,
    pub media: MediaConfig,
    pub records: RecordsConfig,
    pub sorm: SormConfig,
    pub speech: SpeechConfig,
    pub scripts: ScriptsConfig,
    pub intake: IntakeConfig,
    pub phone_book: PhoneBookConfig,
    pub web: WebConfig,
    pub routing: RoutingConfig,
    pub licence: LicenceConfig,
    pub token: TokenConfig,
    pub alarms: AlarmsConfig,
    pub metrics: MetricsConfig,
    pub log: LogConfig,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeConfig {
    pub name: String,
    pub host: String,
    pub data: PathBuf,
    pub threads: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CoconConfig {
    pub listen: SocketAddr,
    pub connections: usize,
    pub idle_seconds: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SipConfig {
    pub listen: SocketAddr,
    #[serde(with = "perhaps")]
    pub tls: Option<SocketAddr>,
    #[serde(with = "perhaps")]
    pub ws: Option<SocketAddr>,
    #[serde(with = "perhaps")]
    pub wss: Option<SocketAddr>,
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub advertised: String,
    pub authorities: PathBuf,
    #[serde(with = "perhaps")]
    pub dns: Option<SocketAddr>,
    pub digest: sip::Offer,
}

/// The input policy of each transport.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntakeConfig {
    pub sip: SipIntake,
    pub http: HttpIntake,
    pub ssh: SshIntake,
}

/// An address, or an empty text for none.
mod perhaps {
    use std::{fmt::Display, str::FromStr};

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[allow(clippy::ref_option, reason = "serde's signature")]
    pub fn serialize<S: Serializer, A: Display>(address: &Option<A>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&address.as_ref().map(ToString::to_string).unwrap_or_default())
    }

    pub fn deserialize<'d, D: Deserializer<'d>, A: FromStr<Err: Display>>(
        from: D,
    ) -> Result<Option<A>, D::Error> {
        let text = String::deserialize(from)?;
        match text.trim() {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(D::Error::custom),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MediaConfig {
    pub address: IpAddr,
    #[serde(with = "perhaps")]
    pub advertised: Option<IpAddr>,
    #[serde(with = "perhaps")]
    pub second_address: Option<IpAddr>,
    #[serde(with = "perhaps")]
    pub second_advertised: Option<IpAddr>,
    pub first_port: u16,
    pub last_port: u16,
    pub threads: usize,
    pub music: PathBuf,
    pub announcements: PathBuf,
    pub silence_threshold: i8,
    pub latching: media::Latching,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordsConfig {
    pub keep_days: u32,
}

impl RecordsConfig {
    /// How long call records are kept; none: for ever.
    pub fn keep(&self) -> Option<std::time::Duration> {
        let days = std::time::Duration::from_secs(86_400).checked_mul(self.keep_days)?;
        (self.keep_days > 0).then_some(days)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SormConfig {
    pub listen: SocketAddr,
    pub number: u8,
    pub two_persons: bool,
    pub key_file: PathBuf,
    pub key_token: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpeechConfig {
    #[serde(with = "perhaps")]
    pub asr: Option<SocketAddr>,
    #[serde(with = "perhaps")]
    pub attendant: Option<SocketAddr>,
    #[serde(with = "perhaps")]
    pub manager: Option<SocketAddr>,
    pub token_file: PathBuf,
    pub threads: usize,
    pub acoustic: PathBuf,
    pub whisper: PathBuf,
    pub remote: String,
    pub remote_rate: u32,
    pub words: PathBuf,
    pub phone_book: String,
    pub phone_book_seconds: u64,
    pub records: usize,
    pub synthesis: String,
    pub prompts: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScriptsConfig {
    pub networks: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhoneBookConfig {
    #[serde(with = "perhaps")]
    pub listen: Option<SocketAddr>,
    pub sql: String,
    pub sql_password_file: PathBuf,
    pub sql_query: String,
    pub ldap: String,
    pub ldap_bind: String,
    pub ldap_password_file: PathBuf,
    pub ldap_base: String,
    pub ldap_filter: String,
    pub ldap_name: String,
    pub ldap_number: String,
    pub ldap_mail: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WebConfig {
    pub listen: SocketAddr,
    pub trusted_proxies: Vec<IpAddr>,
    pub names: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoutingConfig {
    pub imports: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LicenceConfig {
    pub vendor_key: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenConfig {
    pub module: PathBuf,
    pub key: String,
    pub pin_file: PathBuf,
    pub check_seconds: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlarmsConfig {
    pub webhook: String,
}

impl AlarmsConfig {
    /// Where alarms are told, if anywhere.
    pub fn target(&self) -> Result<Option<alarms::Target>, alarms::TargetError> {
        match self.webhook.as_str() {
            "" => Ok(None),
            webhook => webhook.parse().map(Some),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricsConfig {
    pub token_file: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogTarget {
    Stderr,
    Stdout,
    Journal,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogConfig {
    pub to: LogTarget,
    pub level: String,
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration {0}: {1}")]
    Read(PathBuf, std::io::Error),
    #[error("{0}: {1}")]
    Syntax(PathBuf, String),
    #[error("{}", list(.0, .1))]
    Wrong(PathBuf, Vec<Wrong>),
    #[error("{file}: there is no key {key}{hint}; `hypha config --print` shows all")]
    Unknown { file: PathBuf, key: String, hint: String },
}

/// Each wrong value on a line of its own.
fn list(file: &Path, wrongs: &[Wrong]) -> String {
    let lines: Vec<String> = wrongs.iter().map(|w| format!("{}: {w}", file.display())).collect();
    lines.join("\n")
}

impl Config {
    /// As [`Config::read`], for a node that is to work with it: every value is looked at.
    pub fn read_right(file: Option<&Path>) -> Result<Self, ConfigError> {
        let config = Self::read(file)?;
        match validate::wrongs(&config) {
            wrongs if wrongs.is_empty() => Ok(config),
            wrongs => Err(ConfigError::Wrong(file.unwrap_or(Path::new("defaults")).to_owned(), wrongs)),
        }
    }

    /// The defaults, with what the file says instead.
    pub fn read(file: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(file) = file else { return parse(Path::new("defaults"), "") };
        let text = std::fs::read_to_string(file).map_err(|e| ConfigError::Read(file.to_owned(), e))?;
        parse(file, &text)
    }
}

pub fn syntax(file: &Path, e: toml::de::Error) -> ConfigError {
    ConfigError::Syntax(file.to_owned(), e.to_string())
}

pub fn parse(file: &Path, text: &str) -> Result<Config, ConfigError> {
    let syntax = |e| syntax(file, e);
    let mut whole: toml::Table = toml::from_str(DEFAULTS).map_err(syntax)?;
    let given: toml::Table = toml::from_str(text).map_err(syntax)?;
    overlay(file, "", &mut whole, given)?;
    toml::Value::Table(whole).try_into().map_err(syntax)
}

/// Lays the file's values over the defaults; a key without default is a mistake.
fn overlay(file: &Path, path: &str, whole: &mut toml::Table, given: toml::Table) -> Result<(), ConfigError> {
    for (key, value) in given {
        let Some(place) = whole.get_mut(&key) else {
            let near =
                whole.keys().map(|k| (strsim::jaro_winkler(k, &key), k)).max_by(|a, b| a.0.total_cmp(&b.0));
            let hint = near
                .filter(|(likeness, _)| *likeness > 0.7)
                .map(|(_, k)| format!("; did you mean {path}{k}?"));
            let hint = hint.unwrap_or_default();
            return Err(ConfigError::Unknown { file: file.to_owned(), key: format!("{path}{key}"), hint });
        };
        match (place, value) {
            (toml::Value::Table(inner), toml::Value::Table(given)) => {
                overlay(file, &format!("{path}{key}."), inner, given)?;
            }
            (place, value) if place.type_str() == value.type_str() => *place = value,
            (place, value) => {
                let what = format!("{path}{key} wants a {}, not a {}", place.type_str(), value.type_str());
                return Err(ConfigError::Syntax(file.to_owned(), what));
            }
        }
    }
    Ok(())
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node: NodeConfig {
                name: "ds1".into(),
                host: "ecss1".into(),
                data: "/var/lib/hypha".into(),
                threads: 0,
            },
            cocon: CoconConfig {
                listen: SocketAddr::from(([127, 0, 0, 1], 8023)),
                connections: 64,
                idle_seconds: 3600,
            },
            sip: SipConfig {
                listen: SocketAddr::from(([127, 0, 0, 1], 5060)),
                tls: None,
                ws: None,
                wss: None,
                certificate: PathBuf::new(),
                key: PathBuf::new(),
                advertised: String::new(),
                authorities: PathBuf::new(),
                dns: None,
                digest: sip::Offer::Md5,
            },
            media: MediaConfig {
                address: Ipv4Addr::LOCALHOST.into(),
                advertised: None,
                second_address: None,
                second_advertised: None,
                first_port: 12_000,
                last_port: 20_047,
                threads: 1,
                music: PathBuf::new(),
                announcements: PathBuf::new(),
                silence_threshold: -30,
                latching: media::Latching::default(),
            },
            records: RecordsConfig { keep_days: 0 },
            sorm: SormConfig {
                listen: SocketAddr::from(([127, 0, 0, 1], 7777)),
                number: 1,
                two_persons: true,
                key_file: PathBuf::new(),
                key_token: String::new(),
            },
            speech: SpeechConfig {
                asr: Some(SocketAddr::from(([127, 0, 0, 1], 9000))),
                attendant: Some(SocketAddr::from(([127, 0, 0, 1], 9010))),
                manager: Some(SocketAddr::from(([127, 0, 0, 1], 9011))),
                token_file: PathBuf::new(),
                threads: 1,
                acoustic: PathBuf::new(),
                whisper: PathBuf::new(),
                remote: String::new(),
                remote_rate: 8000,
                words: PathBuf::new(),
                phone_book: String::new(),
                phone_book_seconds: 300,
                records: 1000,
                synthesis: String::new(),
                prompts: PathBuf::new(),
            },
            scripts: ScriptsConfig { networks: Vec::new() },
            intake: IntakeConfig::default(),
            phone_book: PhoneBookConfig {
                listen: Some(SocketAddr::from(([127, 0, 0, 1], 9990))),
                sql: String::new(),
                sql_password_file: PathBuf::new(),
                sql_query: "SELECT name, number FROM phone_book".into(),
                ldap: String::new(),
                ldap_bind: String::new(),
                ldap_password_file: PathBuf::new(),
                ldap_base: String::new(),
                ldap_filter: "(telephoneNumber=*)".into(),
                ldap_name: "cn".into(),
                ldap_number: "telephoneNumber".into(),
                ldap_mail: "mail".into(),
            },
            web: WebConfig {
                listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
                trusted_proxies: Vec::new(),
                names: Vec::new(),
            },
            routing: RoutingConfig { imports: PathBuf::new() },
            licence: LicenceConfig { vendor_key: String::new() },
            token: TokenConfig {
                module: PathBuf::new(),
                key: "hypha".into(),
                pin_file: PathBuf::new(),
                check_seconds: 60,
            },
            alarms: AlarmsConfig { webhook: String::new() },
            metrics: MetricsConfig { token_file: PathBuf::new() },
            log: LogConfig { to: LogTarget::Stderr, level: "info".into(), format: LogFormat::Text },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(Path::new("hypha.toml"), text).expect_err("an error").to_string()
    }

    #[test]
    fn what_is_printed_is_what_holds() {
        let printed = parse(Path::new("hypha.toml"), DEFAULTS).expect("the defaults parse");
        assert_eq!(printed, Config::default());
        assert_eq!(parse(Path::new("hypha.toml"), "").expect("nothing is fine"), Config::default());
    }

    #[test]
    fn mistakes_are_named_with_a_way_out() {
        assert!(error("[cocon]\nlistn = 1").contains("did you mean cocon.listen?"));
        assert!(error("[cocn]").contains("did you mean cocon?"));
        assert!(error("[cocon]\nconnections = \"many\"").contains("cocon.connections wants a integer"));
        assert!(error("[cocon]\nlisten = \"nowhere\"").contains("socket address"));
        assert!(error("[cocon").contains("line 1"));
    }
}
