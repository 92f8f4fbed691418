//! Rules for a configuration's values. `hypha config --check` says what `hypha run` would: both read it here.

use std::{
    collections::BTreeMap,
    fmt::Display,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use crate::config::Config;

/// A value that cannot be worked with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {wanted}")]
pub struct Wrong {
    /// `media.first_port`
    pub key: String,
    /// The fault, and a right value.
    pub wanted: String,
}

#[derive(Default)]
struct Found(Vec<Wrong>);

impl Found {
    fn unless(&mut self, good: bool, key: &str, wanted: impl Display) {
        if !good {
            self.0.push(Wrong { key: key.to_owned(), wanted: wanted.to_string() });
        }
    }

    fn result<T, E: Display>(&mut self, key: &str, result: Result<T, E>) {
        if let Err(e) = result {
            self.0.push(Wrong { key: key.to_owned(), wanted: e.to_string() });
        }
    }

    fn within<N: PartialOrd + Display + Copy>(&mut self, key: &str, n: N, low: N, high: N) {
        self.unless((low..=high).contains(&n), key, format!("{low} to {high} is wanted, not {n}"));
    }

    /// A file, or a directory, that must be there where it is named.
    fn there(&mut self, key: &str, path: &Path, directory: bool) {
        if path.as_os_str().is_empty() {
            return;
        }
        let fits = std::fs::metadata(path).map(|m| m.is_dir() == directory);
        let what = if directory { "directory" } else { "file" };
        self.unless(fits.is_ok_and(|f| f), key, format!("there is no {what} {}", path.display()));
    }
}

/// Everything that is wrong with a configuration.
pub fn wrongs(config: &Config) -> Vec<Wrong> {
    let mut found = Found::default();
    node(config, &mut found);
    sip(config, &mut found);
    media(config, &mut found);
    speech(config, &mut found);
    services(config, &mut found);
    intake(config, &mut found);
    doors(config, &mut found);
    found.0
}

fn node(config: &Config, found: &mut Found) {
    let word = |text: &str| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    for (key, value) in [("node.name", &config.node.name), ("node.host", &config.node.host)] {
        found.unless(
            word(value),
            key,
            "1 to 64 letters, digits, '-', '_' and '.' are wanted, such as \"ds1\"",
        );
    }
    found.unless(
        !config.node.data.as_os_str().is_empty(),
        "node.data",
        "a directory is wanted, such as \"/var/lib/hypha\"",
    );
    let data = &config.node.data;
    let fits = !data.exists() || data.is_dir();
    found.unless(fits, "node.data", format!("{} is a file, and a directory is wanted", data.display()));
    found.within("node.threads", config.node.threads, 0, 256);
    found.within("cocon.connections", config.cocon.connections, 1, 10_000);
    found.within("cocon.idle_seconds", config.cocon.idle_seconds, 10, 7 * 86_400);
    let level = tracing_subscriber::EnvFilter::try_new(&config.log.level);
    let wanted = "error, warn, info, debug, trace, or a filter such as \"info,kit=debug\" is wanted";
    // A word that is no level is a module to the filter, and silences everything else.
    let lone = !config.log.level.contains(['=', ',']);
    let known = config.log.level.parse::<tracing::level_filters::LevelFilter>().is_ok();
    found.unless(
        level.is_ok() && (!lone || known),
        "log.level",
        format!("{wanted}, not {:?}", config.log.level),
    );
}

fn sip(config: &Config, found: &mut Found) {
    let sip = &config.sip;
    for (key, at) in [("sip.tls", sip.tls), ("sip.wss", sip.wss)] {
        let named = !(sip.certificate.as_os_str().is_empty() || sip.key.as_os_str().is_empty());
        found.unless(at.is_none() || named, key, "TLS wants sip.certificate and sip.key, files in PEM");
    }
    if (sip.tls.is_some() || sip.wss.is_some()) && !sip.certificate.as_os_str().is_empty() {
        found.result("sip.certificate", sip::certificate(&sip.certificate, &sip.key));
    }
    let host = |text: &str| {
        text.parse::<IpAddr>().is_ok()
            || (text.len() <= 253 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b)))
    };
    let wanted = "an address or a host name without a port is wanted, such as \"203.0.113.9\"";
    found.unless(host(&sip.advertised), "sip.advertised", wanted);
    found.there("sip.authorities", &sip.authorities, false);
    if sip.authorities.is_file() {
        found.result("sip.authorities", sip::authorities(&sip.authorities));
    }
    let ports = config.media.first_port..=config.media.last_port;
    for (key, at) in
        [("sip.listen", Some(sip.listen)), ("sip.tls", sip.tls), ("sip.ws", sip.ws), ("sip.wss", sip.wss)]
    {
        let within = at.is_some_and(|at| ports.contains(&at.port()));
        found.unless(!within, key, "its port is among those of media (media.first_port to media.last_port)");
    }
}

fn intake(config: &Config, found: &mut Found) {
    let (sip, http, ssh) = (&config.intake.sip, &config.intake.http, &config.intake.ssh);
    for (key, n, low, high) in [
        ("sip.connections", sip.connections as u64, 1, 1_000_000),
        ("sip.connections_of_one", sip.connections_of_one as u64, 1, 1_000_000),
        ("sip.message_bytes", sip.message_bytes as u64, 1300, 65_535),
        ("sip.header_bytes", sip.header_bytes as u64, 1300, 65_535),
        ("sip.handshake_seconds", sip.handshake_seconds, 1, 600),
        ("sip.message_seconds", sip.message_seconds, 1, 600),
        ("sip.idle_seconds", sip.idle_seconds, 30, 7 * 86_400),
        ("sip.unread_seconds", sip.unread_seconds, 1, 600),
        ("sip.registering", sip.registering as u64, 1, 1_000_000),
        ("sip.guesses", sip.guesses.into(), 1, 1_000_000),
        ("sip.guesses_of_strangers", sip.guesses_of_strangers.into(), 1, 1_000_000),
        ("http.connections", http.connections as u64, 1, 100_000),
        ("http.connections_of_one", http.connections_of_one as u64, 1, 100_000),
        ("http.header_seconds", http.header_seconds, 1, 600),
        ("http.body_pause_seconds", http.body_pause_seconds, 1, 600),
        ("http.body_seconds", http.body_seconds, 1, 3600),
        ("http.body_bytes_a_second", http.body_bytes_a_second, 1, 1_000_000_000),
        ("ssh.strangers", ssh.strangers as u64, 2, 10_000),
        ("ssh.strangers_of_one", ssh.strangers_of_one as u64, 1, 10_000),
        ("ssh.handshake_seconds", ssh.handshake_seconds, 1, 600),
        ("ssh.log_in_seconds", ssh.log_in_seconds, 1, 3600),
        ("ssh.offers", ssh.offers as u64, 1, 1000),
        ("ssh.guesses", ssh.guesses.into(), 1, 1_000_000),
        ("ssh.guesses_of_strangers", ssh.guesses_of_strangers.into(), 1, 1_000_000),
    ] {
        found.within(&format!("intake.{key}"), n, low, high);
    }
}

fn media(config: &Config, found: &mut Found) {
    let media = &config.media;
    found.within("media.first_port", media.first_port, 1024, 65_500);
    let even = media.first_port.saturating_add(media.first_port % 2);
    let room = media.last_port > even.saturating_add(2);
    let wanted = format!("it must be above media.first_port ({}): a call takes four ports", media.first_port);
    found.unless(room, "media.last_port", wanted);
    found.within("media.threads", media.threads, 1, 64);
    found.within("media.silence_threshold", media.silence_threshold, -127, 0);
    let nowhere = media.address.is_unspecified() || media.address.is_multicast();
    let wanted = "an address that phones can send to is wanted, not one that stands for all";
    found.unless(!nowhere, "media.address", wanted);
    if let Some(second) = media.second_address {
        let nowhere = second.is_unspecified() || second.is_multicast();
        found.unless(!nowhere, "media.second_address", wanted);
        let apart = second.is_ipv4() != media.address.is_ipv4();
        let wanted = "an address of the other family than media.address is wanted: one of IPv4, one of IPv6";
        found.unless(apart, "media.second_address", wanted);
    }
    for (key, told, at) in [
        ("media.advertised", media.advertised, Some(media.address)),
        ("media.second_advertised", media.second_advertised, media.second_address),
    ] {
        let fits = told.is_none_or(|told| at.is_some_and(|at| at.is_ipv4() == told.is_ipv4()));
        found.unless(fits, key, "it must be of the family of the address that it stands for");
    }
    found.there("media.music", &media.music, false);
    if media.music.is_file() {
        let read = ::media::sound::wav(&media.music);
        found.result("media.music", read.map_err(|e| format!("a WAV file is wanted: {e}")));
    }
    found.there("media.announcements", &media.announcements, true);
}

fn speech(config: &Config, found: &mut Found) {
    let speech = &config.speech;
    found.within("speech.threads", speech.threads, 0, 64);
    found.within("speech.remote_rate", speech.remote_rate, 8000, 48_000);
    found.within("speech.phone_book_seconds", speech.phone_book_seconds, 1, 7 * 86_400);
    found.within("speech.records", speech.records, 0, 1_000_000);
    found.there("speech.acoustic", &speech.acoustic, true);
    found.there("speech.whisper", &speech.whisper, false);
    if !speech.remote.is_empty() {
        found.result("speech.remote", speech.remote.parse::<::speech::Remote>());
    }
    let spoken = speech.synthesis.is_empty() || ::speech::synthesis::by_name(&speech.synthesis).is_some();
    let wanted =
        format!("festival, espeak-ng, espeak-ng:VOICE or http://… is wanted, not {:?}", speech.synthesis);
    found.unless(spoken, "speech.synthesis", wanted);
    let (book, http) = (speech.phone_book.as_str(), speech.phone_book.starts_with("http://"));
    if !book.is_empty() && !http {
        found.there("speech.phone_book", Path::new(book.strip_prefix("file://").unwrap_or(book)), false);
    }
}

fn services(config: &Config, found: &mut Found) {
    let book = &config.phone_book;
    if !book.sql.is_empty() {
        found.result("phone_book.sql", phonebook::sql_url(&book.sql));
    }
    if !book.ldap.is_empty() {
        let host = ["ldap://", "ldaps://"].iter().find_map(|s| book.ldap.strip_prefix(s));
        let wanted = format!("ldap://HOST:PORT or ldaps://HOST:PORT is wanted, not {:?}", book.ldap);
        found.unless(
            host.is_some_and(|h| !h.is_empty() && !h.starts_with([':', '/'])),
            "phone_book.ldap",
            wanted,
        );
    }
    found.there("phone_book.sql_password_file", &book.sql_password_file, false);
    found.there("phone_book.ldap_password_file", &book.ldap_password_file, false);
    for network in &config.scripts.networks {
        found.result("scripts.networks", crate::run::network(network));
    }
    found.result("alarms.webhook", config.alarms.target());
    if !config.licence.vendor_key.is_empty() {
        found.result("licence.vendor_key", domain::licence::vendor_key(&config.licence.vendor_key));
    }
    found.within("records.keep_days", config.records.keep_days, 0, 36_500);
    found.within("token.check_seconds", config.token.check_seconds, 1, 86_400);
    found.there("token.module", &config.token.module, false);
    let module = !config.token.module.as_os_str().is_empty();
    let wanted = "it wants the token's module ([token] module)";
    found.unless(config.sorm.key_token.is_empty() || module, "sorm.key_token", wanted);
    found.there("sorm.key_file", &config.sorm.key_file, false);
    if config.sorm.key_file.is_file() {
        found.result("sorm.key_file", store::KeyFile::open(&config.sorm.key_file));
    }
    let wanted = "MultiSORM has the port behind it, which must be one";
    found.unless(config.sorm.listen.port() < u16::MAX, "sorm.listen", wanted);
    for (key, file) in
        [("speech.token_file", &config.speech.token_file), ("metrics.token_file", &config.metrics.token_file)]
    {
        if file.as_os_str().is_empty() {
            continue;
        }
        let directory = file.parent().is_none_or(|d| d.as_os_str().is_empty() || d.is_dir());
        found.unless(directory, key, format!("there is no directory for {}", file.display()));
        let empty = std::fs::read_to_string(file).is_ok_and(|text| text.trim().is_empty());
        found.unless(!empty, key, format!("{} is empty; remove it for a new token", file.display()));
    }
    for proxy in &config.web.trusted_proxies {
        let wanted = "an unspecified address is no proxy: everybody would be believed";
        found.unless(!proxy.is_unspecified(), "web.trusted_proxies", wanted);
    }
}

/// No two doors may have one address.
/// Whether an address is one of this host's, now.
fn is_own(ip: IpAddr) -> bool {
    std::net::UdpSocket::bind((ip, 0)).is_ok()
}

fn doors(config: &Config, found: &mut Found) {
    // Other doors are tried again later; without these there are no calls.
    let foreign = |ip: IpAddr| format!("{ip} is no address of this host");
    let sip = config.sip.listen.ip();
    found.unless(is_own(sip), "sip.listen", foreign(sip));
    for (key, ip) in
        [("media.address", Some(config.media.address)), ("media.second_address", config.media.second_address)]
    {
        if let Some(ip) = ip.filter(|ip| !ip.is_unspecified() && !ip.is_multicast()) {
            found.unless(is_own(ip), key, foreign(ip));
        }
    }
    let imports = &config.routing.imports;
    let fits = imports.as_os_str().is_empty() || !imports.exists() || imports.is_dir();
    found.unless(
        fits,
        "routing.imports",
        format!("{} is a file, and a directory is wanted", imports.display()),
    );
    let multi = SocketAddr::new(config.sorm.listen.ip(), config.sorm.listen.port().saturating_add(1));
    let always = [
        // MultiSORM, which is not set by itself.
        ("sorm.listen", Some(multi).filter(|_| config.sorm.listen.port() != 0)),
        ("cocon.listen", Some(config.cocon.listen)),
        ("sip.listen", Some(config.sip.listen)),
        ("sip.tls", config.sip.tls),
        ("sip.ws", config.sip.ws),
        ("sip.wss", config.sip.wss),
        ("sorm.listen", Some(config.sorm.listen)),
        ("speech.asr", config.speech.asr),
        ("speech.attendant", config.speech.attendant),
        ("speech.manager", config.speech.manager),
        ("phone_book.listen", config.phone_book.listen),
        ("web.listen", Some(config.web.listen)),
    ];
    let mut taken: BTreeMap<u16, Vec<(&str, SocketAddr)>> = BTreeMap::new();
    for (key, at) in always.into_iter().filter_map(|(k, at)| Some((k, at.filter(|a| a.port() != 0)?))) {
        let of_port = taken.entry(at.port()).or_default();
        let meets = |other: &SocketAddr| {
            other.ip() == at.ip() || other.ip().is_unspecified() || at.ip().is_unspecified()
        };
        if let Some((other, _)) = of_port.iter().find(|(_, other)| meets(other)) {
            found.unless(false, key, format!("{at} is the address of {other} already"));
        }
        of_port.push((key, at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn said(text: &str) -> Vec<String> {
        let config = parse(Path::new("hypha.toml"), text).expect("it parses");
        wrongs(&config).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_defaults_are_right() {
        assert_eq!(said(""), [""; 0]);
    }

    #[test]
    fn what_a_start_would_refuse_or_swallow_is_named_with_what_is_wanted() {
        for (text, key, words) in [
            ("[log]\nlevel = \"loud\"", "log.level", "error, warn"),
            ("[cocon]\nconnections = 0", "cocon.connections", "1 to"),
            ("[intake.sip]\nmessage_bytes = 100", "intake.sip.message_bytes", "1300 to 65535"),
            ("[intake.http]\nconnections_of_one = 0", "intake.http.connections_of_one", "1 to"),
            ("[intake.ssh]\nlog_in_seconds = 0", "intake.ssh.log_in_seconds", "1 to"),
            ("[media]\nfirst_port = 20000\nlast_port = 10000", "media.last_port", "above media.first_port"),
            ("[media]\nthreads = 0", "media.threads", "1 to 64"),
            ("[media]\naddress = \"192.0.2.1\"", "media.address", "no address of this host"),
            ("[sip]\nlisten = \"192.0.2.1:5060\"", "sip.listen", "no address of this host"),
            ("[routing]\nimports = \"/etc/hostname\"", "routing.imports", "directory"),
            ("[media]\nsecond_address = \"127.0.0.2\"", "media.second_address", "other family"),
            ("[media]\naddress = \"::\"", "media.address", "phones can send to"),
            ("[media]\naddress = \"0.0.0.0\"", "media.address", "phones can send to"),
            ("[media]\nmusic = \"/etc/hostname\"", "media.music", "WAV"),
            ("[node]\ndata = \"/etc/hostname\"", "node.data", "a directory is wanted"),
            ("[sip]\nauthorities = \"/etc/hostname\"", "sip.authorities", "no certificate"),
            (
                "[sip]\nlisten = \"0.0.0.0:20000\"\n[media]\nfirst_port = 19000\nlast_port = 21000",
                "sip.listen",
                "media",
            ),
            ("[sorm]\nkey_file = \"/nowhere.key\"", "sorm.key_file", "no file /nowhere.key"),
            ("[sorm]\nlisten = \"127.0.0.1:65535\"", "sorm.listen", "MultiSORM"),
            (
                "[sorm]\nlisten = \"127.0.0.1:7777\"\n[web]\nlisten = \"127.0.0.1:7778\"",
                "web.listen",
                "sorm.listen",
            ),
            ("[speech]\ntoken_file = \"/nowhere/token\"", "speech.token_file", "no directory"),
            ("[media]\nmusic = \"/nowhere.wav\"", "media.music", "no file /nowhere.wav"),
            ("[sip]\ntls = \"127.0.0.1:5061\"", "sip.tls", "sip.certificate"),
            (
                "[sip]\nwss = \"127.0.0.1:1\"\ncertificate = \"/no.pem\"\nkey = \"/no.key\"",
                "sip.certificate",
                "/no.pem",
            ),
            ("[sip]\nadvertised = \"sip:x\"", "sip.advertised", "203.0.113.9"),
            ("[phone_book]\nsql = \"postgres://x\"", "phone_book.sql", "mysql"),
            ("[phone_book]\nldap = \"http://x\"", "phone_book.ldap", "ldaps://"),
            ("[speech]\nremote = \"ftp://x\"", "speech.remote", "ftp://x"),
            ("[speech]\nsynthesis = \"sam\"", "speech.synthesis", "festival"),
            ("[speech]\nremote_rate = 1", "speech.remote_rate", "8000 to 48000"),
            ("[node]\nname = \"\"", "node.name", "ds1"),
            ("[node]\nthreads = 100000", "node.threads", "0 to 256"),
            ("[token]\ncheck_seconds = 0", "token.check_seconds", "1 to"),
            ("[sorm]\nkey_token = \"k\"", "sorm.key_token", "module"),
            ("[licence]\nvendor_key = \"zz\"", "licence.vendor_key", ""),
            ("[alarms]\nwebhook = \"https://x\"", "alarms.webhook", "http://HOST"),
            ("[scripts]\nnetworks = [\"10.0.0.0/99\"]", "scripts.networks", "10.0.0.0/99"),
            ("[web]\nlisten = \"127.0.0.1:9000\"", "web.listen", "speech.asr"),
            ("[sip]\nlisten = \"0.0.0.0:8080\"", "web.listen", "sip.listen"),
            ("[web]\ntrusted_proxies = [\"0.0.0.0\"]", "web.trusted_proxies", "no proxy"),
        ] {
            let all = said(text);
            assert!(
                all.iter().any(|w| w.starts_with(&format!("{key}: ")) && w.contains(words)),
                "{text}: {all:?}"
            );
        }
    }
}
