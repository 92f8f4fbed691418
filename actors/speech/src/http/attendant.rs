//! The auto-attendant over HTTP (manual, "Автосекретарь"): pieces of speech go in one by one, a number comes out.
//!
//! `curl HOST:9010/test.pcm -T test.pcm`: PCM of 16 bits at 8000 Hz, or WAV. Pieces of one conversation have one name with a
//! number behind it (`a-1.pcm`, `a-2.pcm`). 206 is an answer without a number: the next piece may bring it.

use std::{
    collections::HashMap,
    io::Read,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::StatusCode,
    web::{Data, Json, Path, Payload, ServiceConfig, delete, get, post, put, resource, route},
};
use httpd::{Guard, spooled};
use kit::Node;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;

use super::{Refusal, teach};
use crate::{
    audio,
    clerk::{
        Clerk,
        records::{Record, Records},
        state::{Row, Table, Teach},
    },
    recogniser::LONGEST,
};

/// Bytes of a piece at most.
const BYTES: u64 = 16 << 20;
/// What pieces without a header are.
const RAW_RATE: u32 = 8000;
/// How long a conversation's last words are remembered.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Rows or records of one answer.
const ROWS: usize = 10_000;

/// Who teaches, as the journal has it.
const WHO: &str = "attendant";
/// The page runs its own script alone.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
                      media-src blob:; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the service needs.
#[derive(Clone)]
pub struct Attendant {
    pub node: Node,
    pub clerk: Clerk,
    pub records: Records,
    pub guard: Guard,
    pub licensed: Arc<dyn Fn() -> bool + Send + Sync>,
    conversations: Arc<Mutex<HashMap<String, (Instant, String)>>>,
}

impl Attendant {
    pub fn new(
        node: Node,
        clerk: Clerk,
        records: Records,
        guard: Guard,
        licensed: Arc<dyn Fn() -> bool + Send + Sync>,
    ) -> Self {
        Self { node, clerk, records, guard, licensed, conversations: Arc::default() }
    }
}

/// The service's pages.
pub fn routes(attendant: Attendant) -> impl Fn(&mut ServiceConfig) + Send + Sync {
    move |config| {
        config
            .app_data(Data::new(attendant.clone()))
            .service(resource("/").route(get().to(page)))
            .service(resource("/api/v1/swagger").route(get().to(openapi)))
            .service(resource("/api/v1/recompile").route(post().to(recompile)))
            .service(resource("/api/v1/phonebook").route(get().to(phonebook)))
            .service(resource("/api/v1/records").route(get().to(records)))
            .service(resource("/api/v1/records/{id}/sound").route(get().to(sound)))
            .service(resource("/api/v1/records/{id}/correct").route(put().to(correct)))
            .service(
                resource("/api/v1/records/{id}/{verdict:positive|negative}")
                    .route(get().to(verdict))
                    .route(route().method(actix_web::http::Method::HEAD).to(verdict)),
            )
            .service(resource("/api/v1/{table}").route(get().to(rows)).route(post().to(add)))
            .service(resource("/api/v1/{table}/{id}").route(delete().to(remove)))
            .service(resource("/{file}").route(put().to(piece)).route(post().to(piece)));
    }
}

/// Which conversation a file's name belongs to: `a-2.pcm` to `a`.
fn conversation(file: &str) -> &str {
    let stem = file.rsplit_once('.').map_or(file, |(s, _)| s);
    let without = stem.trim_end_matches(|c: char| c.is_ascii_digit());
    match without.strip_suffix(['-', '_']) {
        Some(name) if without.len() < stem.len() && !name.is_empty() => name,
        _ => stem,
    }
}

/// Samples of a piece: WAV by its own header, else PCM.
fn samples(file: std::fs::File, length: u64) -> Result<Vec<i16>, Refusal> {
    use std::io::{Seek, SeekFrom};
    let io = |e: std::io::Error| Refusal::Internal(e.to_string());
    let mut file = file;
    let mut head = [0; 4];
    let read = file.read(&mut head).map_err(io)?;
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    if &head[..read] == b"RIFF" {
        return Ok(audio::mono(file, RAW_RATE, LONGEST)?);
    }
    if !length.is_multiple_of(2) {
        return Err(Refusal::Body("PCM of 16 bits has an even number of bytes".into()));
    }
    if length > u64::from(LONGEST * RAW_RATE * 2) {
        return Err(crate::recogniser::RecogniserError::Long(LONGEST).into());
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect())
}

async fn piece(
    request: HttpRequest,
    file: Path<String>,
    payload: Payload,
    me: Data<Attendant>,
) -> Result<HttpResponse, Refusal> {
    me.guard.check(&request)?;
    if !(me.licensed)() {
        return Err(Refusal::Licence);
    }
    let (spool, length) = spooled(payload, BYTES).await?;
    let low = samples(spool, length)?;
    let wide = audio::wide(&low)?;
    let name = conversation(&file).to_owned();
    let before = {
        let mut all = me.conversations.lock();
        all.retain(|_, (at, _)| at.elapsed() < REMEMBERED);
        all.get(&name).map(|(_, text)| text.clone()).unwrap_or_default()
    };
    let answer = me.clerk.hear(wide, &before).await?;
    {
        let mut all = me.conversations.lock();
        match &answer.found {
            Some(_) => drop(all.remove(&name)),
            None if !answer.recognised.is_empty() => {
                all.insert(name, (Instant::now(), answer.recognised.clone()));
            }
            None => {}
        }
    }
    let at = me.node.clock().now();
    // Numbers that grow with time, and that nobody guesses.
    let id = (at.timestamp_millis() as u64) << 20 | (me.node.random_id() & 0xf_ffff);
    let record = Record {
        id,
        at,
        recognised: answer.recognised.clone(),
        number: answer.found.as_ref().map(|f| f.number.clone()),
        confidence: answer.confidence,
        good: None,
        correct: None,
    };
    if let Err(e) = me.records.keep(&record, &low) {
        tracing::warn!(error = %e, "what the attendant heard is not kept");
    }
    let url = |verdict: &str| format!("api/v1/records/{id}/{verdict}");
    let mut body = json!({
        "recognized": answer.recognised,
        "confidence": answer.confidence,
        "negative_url": url("negative"),
    });
    let status = match answer.found {
        Some(found) => {
            body["number"] = found.number.into();
            body["name"] = found.name.into();
            body["positive_url"] = url("positive").into();
            StatusCode::OK
        }
        None => StatusCode::PARTIAL_CONTENT,
    };
    Ok(HttpResponse::build(status).json(body))
}

fn table(name: &str) -> Result<Table, Refusal> {
    Table::from_str(name)
        .map_err(|_| Refusal::Unknown("tables are fullNames, aliases, hardAliases and words".into()))
}

fn data(table: Table, id: u64, row: &Row) -> serde_json::Value {
    json!({ "type": table.to_string(), "id": id.to_string(), "attributes": row })
}

async fn rows(
    request: HttpRequest,
    path: Path<String>,
    me: Data<Attendant>,
) -> Result<HttpResponse, Refusal> {
    me.guard.check(&request)?;
    let table = table(&path)?;
    let taught = me.clerk.taught.load();
    let all: Vec<_> = taught.rows(table).take(ROWS).map(|(id, row)| data(table, id, row)).collect();
    Ok(HttpResponse::Ok().json(json!({ "data": all, "jsonapi": { "version": "1.0" } })))
}

#[derive(Debug, Deserialize)]
struct NewRow {
    name: String,
    /// An alias's full name, or what a hard alias stands for; `fullName` is the original's word for it.
    #[serde(default, alias = "fullName")]
    target: Option<String>,
}

async fn add(
    request: HttpRequest,
    path: Path<String>,
    new: Result<Json<NewRow>, actix_web::Error>,
    me: Data<Attendant>,
) -> Result<HttpResponse, Refusal> {
    me.guard.check(&request)?;
    let table = table(&path)?;
    let Json(NewRow { name, target }) = new.map_err(|e| Refusal::Body(e.to_string()))?;
    let row = Row { name: name.trim().to_owned(), target };
    let id = teach(&me.node, &request, WHO, Teach::Add { table, row: row.clone() }).await?;
    Ok(HttpResponse::Created()
        .json(json!({ "data": data(table, id, &row), "jsonapi": { "version": "1.0" } })))
}

async fn remove(
    request: HttpRequest,
    path: Path<(String, u64)>,
    me: Data<Attendant>,
) -> Result<HttpResponse, Refusal> {
    me.guard.check(&request)?;
    let (name, id) = path.into_inner();
    teach(&me.node, &request, WHO, Teach::Remove { table: table(&name)?, id }).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Listens for what has been taught since.
async fn recompile(request: HttpRequest, me: Data<Attendant>) -> Result<HttpResponse, Refusal> {
    me.guard.check(&request)?;
    me.clerk.rebuild();
    let picture = me.clerk.picture();
    Ok(HttpResponse::Ok()
        .json(json!({ "names": picture.book.len(), "words": me.clerk.taught.load().words() })))
}

async fn phonebook(request: HttpRequest, me: Data<Attendant>) -> Result<HttpResponse, Refusal> {
    me.guard.check(&request)?;
    Ok(HttpResponse::Ok().content_type("text/xml; charset=utf-8").body(me.clerk.picture().book.xml()))
}

async fn records(request: HttpRequest, me: Data<Attendant>) -> Result<HttpResponse, Refusal> {
    me.guard.check(&request)?;
    let all = me.records.list(ROWS).map_err(|e| Refusal::Internal(e.to_string()))?;
    Ok(HttpResponse::Ok().json(all))
}

fn no_record(id: u64) -> Refusal {
    Refusal::Unknown(format!("there is no record {id}"))
}

async fn sound(request: HttpRequest, path: Path<u64>, me: Data<Attendant>) -> Result<HttpResponse, Refusal> {
    me.guard.check(&request)?;
    let wav = me.records.sound(*path).ok_or_else(|| no_record(*path))?;
    Ok(HttpResponse::Ok().content_type("audio/wav").body(wav))
}

async fn verdict(
    request: HttpRequest,
    path: Path<(u64, String)>,
    me: Data<Attendant>,
) -> Result<HttpResponse, Refusal> {
    me.guard.check(&request)?;
    let (id, verdict) = path.into_inner();
    let good = verdict == "positive";
    let known =
        me.records.change(id, |r| r.good = Some(good)).map_err(|e| Refusal::Internal(e.to_string()))?;
    if known { Ok(HttpResponse::Ok().finish()) } else { Err(no_record(id)) }
}

#[derive(Debug, Deserialize)]
struct Correct {
    text: String,
}

async fn correct(
    request: HttpRequest,
    path: Path<u64>,
    body: Result<Json<Correct>, actix_web::Error>,
    me: Data<Attendant>,
) -> Result<HttpResponse, Refusal> {
    me.guard.check(&request)?;
    let Json(Correct { text }) = body.map_err(|e| Refusal::Body(e.to_string()))?;
    let text: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
    let known = me.records.change(*path, |r| r.correct = Some(text));
    let known = known.map_err(|e| Refusal::Internal(e.to_string()))?;
    if known { Ok(HttpResponse::NoContent().finish()) } else { Err(no_record(*path)) }
}

/// Where people listen and correct.
async fn page() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header(("Content-Security-Policy", POLICY))
        .body(include_str!("attendant.html"))
}

async fn openapi() -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(include_str!("attendant.openapi.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_one_conversation_have_one_name() {
        for (file, name) in [
            ("a-1.pcm", "a"),
            ("a-2.wav", "a"),
            ("test.pcm", "test"),
            ("x_10", "x"),
            ("7.pcm", "7"),
            ("-1", "-1"),
        ] {
            assert_eq!(conversation(file), name, "{file}");
        }
    }
}
