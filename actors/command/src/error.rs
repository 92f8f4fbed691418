//! Why a command did not succeed.

/// Shown as `Command error: …`, as the manual prints it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The words lead nowhere.
    #[error("{0}")]
    Unknown(String),
    /// The arguments do not fit; the text says what does.
    #[error("{0}")]
    Usage(String),
    #[error("permission denied: {0}")]
    Denied(String),
    /// It must be confirmed and nobody is there to ask.
    #[error("{0} Nothing was done: confirm with --force")]
    Unconfirmed(String),
    /// The command was understood and refused.
    #[error("{0}")]
    Failed(String),
}

impl CommandError {
    pub fn failed(e: impl ToString) -> Self {
        Self::Failed(e.to_string())
    }

    /// The kind of error for programs, beside the text in `--json`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "unknown",
            Self::Usage(_) => "usage",
            Self::Denied(_) => "denied",
            Self::Unconfirmed(_) => "unconfirmed",
            Self::Failed(_) => "failed",
        }
    }

    /// Exit status of `ssh … 'command'`.
    pub fn status(&self) -> u32 {
        match self {
            Self::Failed(_) => 1,
            Self::Unknown(_) | Self::Usage(_) => 2,
            Self::Denied(_) => 3,
            Self::Unconfirmed(_) => 4,
        }
    }
}
