//! Transcription over HTTP (manual, "Транскрибирование разговоров"): a WAV file goes in, words with times come out.

use std::{
    fs::File,
    io::{Seek, SeekFrom},
    sync::Arc,
};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Bytes, Data, Payload, ServiceConfig, get, resource, to},
};
use httpd::{Guard, TEXT, label, spooled};
use kit::Node;

use super::{
    Refusal,
    transcription::{Jobs, Work, start},
};
use crate::{
    audio::{AudioError, Reader},
    clerk::Clerk,
    recogniser::RecogniserError,
    transcribe::WEBVTT,
};

/// Bytes of a file at most: 4 hours of two channels at 16000 Hz.
const BYTES: u64 = 1 << 30;

/// What transcription needs.
#[derive(Clone)]
pub struct Trans {
    pub node: Node,
    /// Recognisers, and how words are said.
    pub clerk: Clerk,
    pub guard: Guard,
    /// Whether the licence grants it now.
    pub licensed: Arc<dyn Fn() -> bool + Send + Sync>,
    pub jobs: Jobs,
}

/// The service's pages.
pub fn routes(trans: Trans) -> impl Fn(&mut ServiceConfig) + Send + Sync {
    move |config| {
        config.app_data(Data::new(trans.clone()));
        for (path, mono, subtitles) in [
            ("/trans", false, false),
            ("/trans/vtt", false, true),
            ("/trans/mono", true, false),
            ("/trans/mono/vtt", true, true),
        ] {
            let serve = move |request: HttpRequest, payload: Payload, trans: Data<Trans>| async move {
                transcribe(request, payload, trans, mono, subtitles).await
            };
            config.service(
                resource(path)
                    .route(actix_web::web::put().to(serve))
                    .route(actix_web::web::post().to(serve))
                    .default_service(to(|| async {
                        HttpResponse::MethodNotAllowed()
                            .insert_header(("Allow", "PUT, POST"))
                            .content_type(TEXT)
                            .body("a file is wanted: curl … -T file.wav\n")
                    })),
            );
        }
        config.service(resource("/trans/jobs").route(get().to(
            |request: HttpRequest, trans: Data<Trans>| async move {
                trans.guard.check(&request)?;
                Ok::<_, Refusal>(HttpResponse::Ok().json(trans.jobs.seen()))
            },
        )));
    }
}

async fn transcribe(
    request: HttpRequest,
    payload: Payload,
    trans: Data<Trans>,
    mono: bool,
    subtitles: bool,
) -> Result<HttpResponse, Refusal> {
    trans.guard.check(&request)?;
    if !(trans.licensed)() {
        return Err(Refusal::Licence);
    }
    let none =
        || RecogniserError::Model("no recogniser of open speech: [speech] whisper names its weights".into());
    let open = trans.clerk.open.clone().ok_or_else(none)?;
    if open.threads() == 0 {
        return Err(RecogniserError::Stopped.into());
    }
    // Its place is taken before the body comes: a file that nobody has time for is not uploaded.
    let working = trans.jobs.begin()?;
    let (file, bytes) = spooled(payload, BYTES).await?;
    working.came(bytes);
    let labels = [label(&request, "Calling"), label(&request, "Called")];
    // What cannot be read to its end is refused before anything is answered.
    let (file, length) = tokio::task::spawn_blocking(move || checked(file))
        .await
        .map_err(|e| Refusal::Internal(e.to_string()))??;
    working.length(length);
    let work = Work {
        open,
        closed: trans.clerk.closed.clone(),
        dictionary: trans.clerk.picture().dictionary(),
        working,
        mono,
        subtitles,
        labels,
    };
    let mut lines = start(&trans.node, work, file).await?;
    let kind = if subtitles { "text/vtt; charset=utf-8" } else { TEXT };
    // The first words decide whether it works at all.
    let first = match lines.next().await {
        Some(first) => first?,
        None => {
            return Ok(HttpResponse::Ok().content_type(kind).body(if subtitles { WEBVTT } else { "" }));
        }
    };
    let rest = futures::stream::unfold(Some(lines), |lines| async move {
        let mut lines = lines?;
        match lines.next().await? {
            Ok(text) => Some((Ok(Bytes::from(text)), Some(lines))),
            // The answer has begun: that it is cut off is all that can be told.
            Err(e) => Some((Err(std::io::Error::other(e.to_string())), None)),
        }
    });
    let all = futures::StreamExt::chain(
        futures::stream::once(std::future::ready(Ok::<_, std::io::Error>(Bytes::from(first)))),
        rest,
    );
    Ok(HttpResponse::Ok().content_type(kind).streaming(all))
}

/// Reads a file to its end; how long it is, in milliseconds.
fn checked(mut file: File) -> Result<(File, u64), Refusal> {
    let copy = file.try_clone().map_err(AudioError::from)?;
    let mut reader = Reader::open(copy)?;
    let mut frames = 0;
    while let Some(channels) = reader.read()? {
        frames += channels.first().map_or(0, Vec::len) as u64;
    }
    if frames == 0 {
        return Err(Refusal::Body("no sound in the file".into()));
    }
    file.seek(SeekFrom::Start(0)).map_err(AudioError::from)?;
    Ok((file, frames * 1000 / u64::from(reader.rate)))
}
