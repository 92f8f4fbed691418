//! A primary multiplex line (E1, ITU-T G.703/G.704) whose bits travel in UDP (SAToP, RFC 4553), and X.25 over its time slots:
//! HDLC framing ([`hdlc`]), LAPB (ISO/IEC 7776, [`lapb`]) and the packet layer (ITU-T X.25, ISO/IEC 8208, [`x25`]).
//!
//! All of it is plain values without IO: bytes and the time go in, bytes and events come out. Only [`port`] has a socket.

pub mod channel;
pub mod frame;
pub mod hdlc;
pub mod lapb;
pub mod line;
pub mod packet;
pub mod port;
pub mod x25;

/// Octets of a frame: one for each time slot.
pub const SLOTS: usize = 32;
/// One frame.
pub type Frame = [u8; SLOTS];
/// Frames a second.
pub const RATE: u32 = 8000;
/// What an idle speech slot holds: silence in A-law (G.711).
pub const IDLE: u8 = 0xD5;
