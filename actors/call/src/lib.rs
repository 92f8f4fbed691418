//! `call`: calls. Uses `kit`, `command` and `domain`; knows neither SIP nor RTP.
//!
//! An adapter of legs brings an [`Incoming`]; [`start`] makes an actor of it. Inside is [`core::Call`], a state machine that
//! is given what legs, media and timers say, and answers with effects. Sessions are negotiated through
//! [`media::MediaSession`] at once; packets flow elsewhere.

mod actor;
pub mod application;
pub mod board;
mod cause;
pub mod commands;
pub mod core;
mod files;
mod ladder;
pub mod leg;
pub mod media;
mod meter;
pub mod record;
mod records;
pub mod service;
pub mod switch;
mod tree;
pub mod witness;

pub use actor::{CallMsg, Services, start};
pub use application::{AppEvent, AppWish, Applications, Feed, NoApplications};
pub use board::Board;
pub use cause::Cause;
pub use ladder::{Ladder, Line};
pub use leg::{
    Incoming, LegCommand, LegEvent, LegId, Origin, Outgoing, Party, Refer, SIGNALLING, SignalMsg, Target,
};
pub use media::{MediaError, MediaEvent, MediaPlane, MediaSession};
pub use records::{NAME as RECORDS, RecordsMsg};
pub use tree::{calls, files, records};
