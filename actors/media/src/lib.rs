//! `media`: the media plane. Uses `call`, whose [`call::MediaPlane`] it is.
//!
//! [`sdp`] reads and writes session descriptions, [`sealing`] what they say of keys, [`rtp`] packets, [`sound`] makes and
//! finds tones; [`guard`] opens and seals a leg's packets, [`session`] is one call's packets without sockets. [`plane`] negotiates for calls, `ports` has the sockets, `thread` carries their packets, `sink` what
//! is recorded or forked.

mod coding;
mod g722;
pub mod guard;
pub mod plane;
mod playout;
mod ports;
mod resample;
pub mod rtp;
pub mod sdp;
pub mod sealing;
pub mod session;
mod sink;
pub mod sound;
mod thread;

pub use plane::{Plane, PlaneError, Settings};
pub use session::Latching;
