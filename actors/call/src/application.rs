//! Applications: programs that talk to a caller in place of a subscriber, such as an IVR script. The call answers, plays and
//! dials as its application wants, and tells it what the caller does.

use std::{path::PathBuf, time::Duration};

use futures::future::BoxFuture;
use kit::Address;
use strum::IntoStaticStr;
use tokio::sync::mpsc;

use crate::{Cause, LegId, Party};

/// Frames that wait for whoever listens: 4 s.
pub const HEARING: usize = 200;

/// Who calls, and for what.
#[derive(Debug, Clone)]
pub struct Begin {
    pub call: Address,
    pub domain: String,
    /// Which script of the domain.
    pub script: String,
    pub leg: LegId,
    pub caller: Party,
    /// The number that was called.
    pub called: String,
}

/// What a call tells its application.
#[derive(Debug, Clone, PartialEq, IntoStaticStr)]
pub enum AppEvent {
    /// The caller has pressed a key.
    Key(char),
    /// What was to be played has been.
    Played,
    /// A number it wanted dialled: it did not come to a conversation.
    Failed(Cause),
    /// It did; the application is over.
    Connected,
    /// The caller has gone.
    Ended,
    /// Time set by the application itself.
    Due(u64),
}

/// What an application wants of its call.
#[derive(Debug, Clone, PartialEq, Eq, IntoStaticStr)]
pub enum AppWish {
    Play(PathBuf),
    Quiet,
    /// What the caller says goes there, until [`AppWish::Deaf`].
    Listen(Feed),
    Deaf,
    /// Connects the caller with a number; it is given up after so long.
    Dial {
        number: String,
        patience: Duration,
    },
    Hangup,
}

/// Samples of a party, 20 ms at 8000 Hz at a time; what does not fit is lost.
#[derive(Clone)]
pub struct Feed(pub mpsc::Sender<Box<[i16; 160]>>);

impl PartialEq for Feed {
    fn eq(&self, other: &Self) -> bool {
        self.0.same_channel(&other.0)
    }
}

impl Eq for Feed {}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Feed")
    }
}

/// Starts applications.
pub trait Applications: Send + Sync {
    /// Whether the domain has such a script.
    fn has(&self, domain: &str, script: &str) -> bool;

    /// Starts it; it takes [`AppEvent`]s under this name.
    fn start(&self, begin: Begin) -> BoxFuture<'static, Result<Address, String>>;
}

/// There are none.
pub struct NoApplications;

impl Applications for NoApplications {
    fn has(&self, _: &str, _: &str) -> bool {
        false
    }

    fn start(&self, begin: Begin) -> BoxFuture<'static, Result<Address, String>> {
        Box::pin(async move { Err(format!("there is no script {}", begin.script)) })
    }
}
