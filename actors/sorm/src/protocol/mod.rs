//! The protocol between a control point (ПУ) and a station, as order 268 of 19.11.2012 has it: commands on the first data
//! channel (КПД1), acknowledgements and tables back on it, events of calls on the second (КПД2).
//!
//! Numbers of several bytes are little-endian, an unused field is all `FF`, and the length byte counts what follows the
//! header. [`Request`] is a command, [`Reply`] a message of the first channel, [`Event`] one of the second.

mod bytes;
mod codes;
mod command;
mod event;
mod number;
mod reply;

pub use codes::{
    Alarm, Attribute, Category, Control, Intrusion, Kind, LineState, Node, Phase, Priority, Refusal,
    Selection, Sign,
};
pub use command::{BadRequest, Channel, Command, Pair, Password, Request, Subject, Wanted};
pub use event::{CallEvent, Event, Operation, Party, Said};
pub use number::{Digits, Moment};
pub use reply::{Reply, Series, Text, Told};

/// What every unit begins with.
pub const PREAMBLE: u8 = 0xCC;
/// Version of the messages: order 268.
pub const VERSION: u8 = 0x02;
/// A field of one byte that is not used.
pub const NONE: u8 = 0xFF;
/// A field of two bytes that is not used.
pub const NONE_16: u16 = 0xFFFF;

/// Which way units go: their headers differ in length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Command,
    Reply,
    Event,
}

impl Way {
    /// Bytes before the payload.
    pub fn header(self) -> usize {
        match self {
            Self::Command | Self::Reply => 10,
            Self::Event => 12,
        }
    }
}

/// What stands at the beginning of a stream of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// More bytes are needed.
    More,
    /// A unit of so many bytes.
    Unit(usize),
    /// So many bytes that begin no unit.
    Garbage(usize),
}

/// Cuts a stream into units. The order leaves framing over TCP open; here there is none, the length byte is enough.
pub fn cut(stream: &[u8], way: Way) -> Cut {
    match stream {
        [] => Cut::More,
        [PREAMBLE, _, _, length, ..] => {
            let whole = way.header() + usize::from(*length);
            if stream.len() >= whole { Cut::Unit(whole) } else { Cut::More }
        }
        [PREAMBLE, ..] => Cut::More,
        other => Cut::Garbage(other.iter().position(|b| *b == PREAMBLE).unwrap_or(other.len())),
    }
}

/// Bytes that are no message of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no message of the protocol: {0}")]
pub struct Malformed(pub &'static str);

#[cfg(test)]
mod tests;
