//! The input policy of each transport in one place: how much of a peer's bytes, time and connections is taken before it has
//! proven anything. The defaults are the configuration's; tests and replays use them too.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    alarm::{Alarms, Condition, Severity},
    throttle::Limits,
};

/// How long a refusal is an alarm.
const RECENT: Duration = Duration::from_secs(60);

/// Raises the alarm of a door whose policy refuses something.
pub fn crowded(alarms: &Alarms, door: &str, section: &str) {
    let crowded = Condition::new("node::door::crowded", Severity::Minor, door);
    let cause =
        format!("more comes than [intake.{section}] and the node's memory allow; the rest is refused");
    alarms.raise(crowded.cause(cause).lasting(RECENT));
}

/// SIP over UDP, TCP, TLS and WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SipIntake {
    /// Streams at once; the node takes a third of its descriptors for them at most.
    pub connections: usize,
    /// Streams of one address (of IPv6, a /64): an office, or a proxy with its phones behind it.
    pub connections_of_one: usize,
    /// Longest message and, within it, longest header before its end must have come; bytes.
    pub message_bytes: usize,
    pub header_bytes: usize,
    /// Seconds that TLS or WebSocket may take to begin.
    pub handshake_seconds: u64,
    /// Seconds from a message's first byte to its last, and from the beginning of a connection to its first message.
    pub message_seconds: u64,
    /// Seconds without a message or a keep-alive.
    pub idle_seconds: u64,
    /// Seconds that a peer may leave unread what is written to it.
    pub unread_seconds: u64,
    /// Registrations being kept at once; more get 503.
    pub registering: usize,
    /// Wrong passwords a minute; a phone with a wrong one tries often without meaning harm.
    pub guesses: u32,
    pub guesses_of_strangers: u32,
}

impl Default for SipIntake {
    fn default() -> Self {
        Self {
            connections: 20_000,
            connections_of_one: 1000,
            message_bytes: 65_535,
            header_bytes: 32 * 1024,
            handshake_seconds: 10,
            message_seconds: 20,
            idle_seconds: 600,
            unread_seconds: 10,
            registering: 10_000,
            guesses: 20,
            guesses_of_strangers: 200,
        }
    }
}

impl SipIntake {
    pub fn handshake(&self) -> Duration {
        Duration::from_secs(self.handshake_seconds)
    }

    pub fn message(&self) -> Duration {
        Duration::from_secs(self.message_seconds)
    }

    pub fn idle(&self) -> Duration {
        Duration::from_secs(self.idle_seconds)
    }

    pub fn unread(&self) -> Duration {
        Duration::from_secs(self.unread_seconds)
    }

    pub fn limits(&self) -> Limits {
        Limits { tries: self.guesses, strangers: self.guesses_of_strangers }
    }
}

/// Every service over HTTP, each for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpIntake {
    /// Connections at once, and of one address (of IPv6, a /64).
    pub connections: usize,
    pub connections_of_one: usize,
    /// Seconds until a request's header has come.
    pub header_seconds: u64,
    /// Seconds that a body may pause, and that it may take as a whole beside one for each `body_bytes_a_second`.
    pub body_pause_seconds: u64,
    pub body_seconds: u64,
    pub body_bytes_a_second: u64,
}

impl Default for HttpIntake {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_of_one: 128,
            header_seconds: 10,
            body_pause_seconds: 10,
            body_seconds: 20,
            body_bytes_a_second: 10_000,
        }
    }
}

/// SSH, of operators and of mediators, each for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshIntake {
    /// Connections that have not logged in, and those of one address (of IPv6, a /64). A newcomer always gets in: the oldest
    /// silent one of the address that has most makes room.
    pub strangers: usize,
    pub strangers_of_one: usize,
    /// Seconds until keys are exchanged, and then until the log-in.
    pub handshake_seconds: u64,
    pub log_in_seconds: u64,
    /// Keys and passwords that one connection may offer: an agent with many keys offers all of them.
    pub offers: usize,
    /// Wrong passwords a minute.
    pub guesses: u32,
    pub guesses_of_strangers: u32,
}

impl Default for SshIntake {
    fn default() -> Self {
        Self {
            strangers: 48,
            strangers_of_one: 8,
            handshake_seconds: 20,
            log_in_seconds: 60,
            offers: 32,
            guesses: 5,
            guesses_of_strangers: 50,
        }
    }
}

impl SshIntake {
    pub fn limits(&self) -> Limits {
        Limits { tries: self.guesses, strangers: self.guesses_of_strangers }
    }
}
