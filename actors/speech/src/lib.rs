//! Speech: recognisers behind one trait, transcription, the auto-attendant (автосекретарь), synthesis.
//!
//! What is heard goes in as samples of 16000 Hz, words with times and confidences come out.

pub mod apart;
pub mod audio;
pub mod clerk;
pub mod dictionary;
pub mod grammar;
pub mod graph;
pub mod http;
mod importer;
pub mod lexicon;
pub mod manager;
pub mod numbers;
pub mod phones;
pub mod pool;
pub mod recogniser;
pub mod remote;
pub mod sphinx;
pub mod synthesis;
pub mod transcribe;
mod tree;
pub mod vad;
pub mod whisper;

pub use httpd::Door;
pub use importer::PhoneBook;
pub use remote::{Remote, RemoteError};
pub use tree::{Kept, OpenSpeech, Settings, Speech, SpeechError, child, keep, unpack};
