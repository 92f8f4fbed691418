//! Why an actor ended, in OTP's terms.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The reason an actor ended. `Normal` and `Shutdown` are the orderly ones: a transient child that ends with them is
/// not started again (supervisor(3) of Erlang/OTP).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", content = "detail", rename_all = "snake_case")]
pub enum ExitReason {
    /// It had nothing left to do.
    Normal,
    /// Its supervisor, or an operator, asked it to stop.
    Shutdown,
    /// It did not stop in its time, or was killed on purpose.
    Killed,
    /// A handler panicked; the text is the panic's message and place.
    Panic(String),
    /// A handler gave up with an error.
    Error(String),
    /// There is no such actor (a monitor on a name nobody has).
    NoActor,
}

impl ExitReason {
    /// An error as an exit reason, for `?` in handlers.
    pub fn error(e: impl fmt::Display) -> Self {
        Self::Error(e.to_string())
    }

    /// Whether a transient child that ended so is started again.
    pub fn is_abnormal(&self) -> bool {
        !matches!(self, Self::Normal | Self::Shutdown)
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Normal => f.write_str("normal"),
            Self::Shutdown => f.write_str("shutdown"),
            Self::Killed => f.write_str("killed"),
            Self::Panic(text) => write!(f, "panic: {text}"),
            Self::Error(text) => write!(f, "error: {text}"),
            Self::NoActor => f.write_str("no such actor"),
        }
    }
}
