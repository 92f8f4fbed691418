//! The services over HTTP: transcription, the auto-attendant.

pub mod attendant;
pub mod manager;
pub mod trans;
pub(crate) mod transcription;

use actix_web::{HttpRequest, HttpResponse, ResponseError, http::StatusCode};
use httpd::BodyError;
use kit::{
    Node,
    journal::Origin,
    ledger::{self, LedgerError},
};

use crate::{
    audio::AudioError,
    clerk::state::{NAME, TaughtBook, Teach, TeachError},
    recogniser::RecogniserError,
};

/// Why a request is refused; its text says what would help.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("the licence does not grant speech recognition")]
    Licence,
    #[error(transparent)]
    Request(#[from] BodyError),
    #[error("{0}")]
    Body(String),
    #[error("{0} requests are being worked on; try again")]
    Busy(usize),
    #[error(transparent)]
    Audio(#[from] AudioError),
    #[error(transparent)]
    Recogniser(#[from] RecogniserError),
    #[error("{0}")]
    Unknown(String),
    #[error("{0}")]
    Exists(String),
    #[error("{0}")]
    Internal(String),
}

/// Changes what has been taught.
async fn teach(node: &Node, request: &HttpRequest, who: &str, teach: Teach) -> Result<u64, Refusal> {
    let from = request.peer_addr().map(|a| a.to_string()).unwrap_or_default();
    let origin = Origin { who: who.to_owned(), from };
    let changed = ledger::change_at::<TaughtBook>(node, NAME, teach, origin).await;
    changed.map_err(|e| match e {
        LedgerError::Refused(e @ TeachError::Exists(_)) => Refusal::Exists(e.to_string()),
        LedgerError::Refused(e @ TeachError::Unknown(..)) => Refusal::Unknown(e.to_string()),
        LedgerError::Refused(e) => Refusal::Body(e.to_string()),
        other => Refusal::Internal(other.to_string()),
    })
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Licence => StatusCode::FORBIDDEN,
            Self::Request(e) => e.status(),
            Self::Audio(AudioError::Format(_) | AudioError::Rate(_) | AudioError::Channels(_)) => {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            Self::Audio(AudioError::Truncated) | Self::Body(_) => StatusCode::BAD_REQUEST,
            Self::Recogniser(RecogniserError::Grammar(_)) => StatusCode::BAD_REQUEST,
            Self::Recogniser(RecogniserError::Long(_)) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Busy(_) | Self::Recogniser(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unknown(_) => StatusCode::NOT_FOUND,
            Self::Exists(_) => StatusCode::CONFLICT,
            Self::Audio(AudioError::Io(_)) | Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        if self.status_code() == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header(("Retry-After", "5"));
        }
        response.content_type(httpd::TEXT).body(format!("{self}\n"))
    }
}
