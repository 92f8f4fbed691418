//! `media`: the media plane. Uses `call`, whose [`call::MediaPlane`] it is.
//!
//! [`sdp`] reads and writes session descriptions, [`rtp`] packets, [`sound`] makes and finds tones; [`session`] is one
//! call's packets without sockets. [`plane`] negotiates for calls, `ports` has the sockets, `thread` carries their packets.

pub mod plane;
mod ports;
pub mod rtp;
pub mod sdp;
pub mod session;
pub mod sound;
mod thread;

pub use plane::{Plane, PlaneError, Settings};
