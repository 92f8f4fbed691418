//! SIP as bytes: messages, URIs and addresses. Plain values, no socket, no clock.

pub mod address;
pub mod body;
pub mod message;
pub mod uri;
pub mod validate;
