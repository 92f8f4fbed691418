//! Services over HTTP: each an actor that ends with its server, behind a door that may ask for a token.

mod body;
mod server;

pub use body::{Guard, label, spooled};
pub use server::{Door, HEADERS, Headers, TEXT, child};

/// Why a request is not looked at; its text says what would help.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("a token is wanted: Authorization: Bearer …")]
    Token,
    /// A page of a browser, by the name of its site.
    #[error("this service is for programs of this machine: ask for it by its address")]
    Foreign,
    #[error("{0}")]
    Body(String),
    #[error("larger than {0} bytes")]
    Large(u64),
    #[error("nothing came for {0} s")]
    Slow(u64),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl BodyError {
    pub fn status(&self) -> actix_web::http::StatusCode {
        use actix_web::http::StatusCode;
        match self {
            Self::Token => StatusCode::UNAUTHORIZED,
            Self::Foreign => StatusCode::MISDIRECTED_REQUEST,
            Self::Body(_) => StatusCode::BAD_REQUEST,
            Self::Large(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Io(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}
