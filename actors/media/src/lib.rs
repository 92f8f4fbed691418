//! `media`: the media plane. Uses `call`, whose [`call::MediaPlane`] it is.
//!
//! [`sdp`] reads and writes session descriptions, [`rtp`] packets, [`sound`] makes and finds tones; [`session`] is one
//! call's packets without sockets. [`plane`] has the ports, the negotiation and the threads.

pub mod plane;
pub mod rtp;
pub mod sdp;
pub mod session;
pub mod sound;

pub use plane::{Plane, PlaneError, Settings};
