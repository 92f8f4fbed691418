//! The actor of one caller's script: `domain/<D>/ivr/<ID>`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use call::{
    AppEvent, AppWish, Applications, CallMsg, Feed,
    application::{Begin, HEARING},
};
use chrono::{DateTime, FixedOffset};
use domain::Estate;
use futures::future::BoxFuture;
use kit::{Actor, Address, ChildSpec, Cx, ExitReason, Node, Restart, SupervisorHandle};
use speech::{
    Speech,
    audio::{Rate, to_i16},
    grammar::Grammar,
    recogniser::{RATE, Task},
    synthesis::{Prompts, Text},
    vad::{Cutter, Pauses},
};
use tokio::sync::mpsc;

use crate::{
    library::Library,
    run::{Answer, Effect, Event, Run},
    script::{Prompt, Script},
    vars::Vars,
};

/// What scripts' actors share.
#[derive(Clone)]
pub struct Services {
    pub node: Node,
    pub estate: Estate,
    pub speech: Speech,
    /// None where nothing can be said.
    pub prompts: Option<Prompts>,
    /// Where files of prompts are.
    pub files: PathBuf,
    pub library: Arc<ArcSwap<Library>>,
}

/// The supervisor of the scripts being run.
pub const RUNS: &str = "ivr/runs";
/// How long an attendant may take for a piece of speech.
const PATIENCE: Duration = Duration::from_secs(20);

impl Applications for Services {
    fn has(&self, domain: &str, script: &str) -> bool {
        self.library.load().get(domain, script).is_some()
    }

    fn start(&self, begin: Begin) -> BoxFuture<'static, Result<Address, String>> {
        let services = self.clone();
        Box::pin(async move {
            let json = services.library.load().get(&begin.domain, &begin.script).map(|k| k.json.clone());
            let json = json.ok_or_else(|| format!("there is no script {}", begin.script))?;
            let script = Arc::new(Script::read(json).map_err(|e| e.to_string())?);
            let id = services.node.random_id();
            let name =
                Address::new(format!("domain/{}/ivr/{id:016x}", begin.domain)).map_err(|e| e.to_string())?;
            let supervisor = Address::new(RUNS).map_err(|e| e.to_string())?;
            let supervisor =
                SupervisorHandle::find(&services.node, &supervisor).map_err(|e| e.to_string())?;
            let spec = ChildSpec::worker(name.clone(), move |_| {
                let scripted = Scripted::new(services.clone(), begin.clone(), script.clone());
                async move { Ok(scripted) }
            });
            supervisor.start_child(spec.restart(Restart::Temporary)).await.map_err(|e| e.to_string())?;
            Ok(name)
        })
    }
}

/// Somebody who listens to the caller for a menu.
struct Listening {
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The actor.
struct Scripted {
    services: Services,
    begin: Begin,
    run: Run,
    listening: Option<Listening>,
    /// The listener that counts: what an earlier one may yet tell is of no use.
    ear: Option<u64>,
    ears: u64,
}

fn wall(node: &Node) -> DateTime<FixedOffset> {
    node.clock().now().with_timezone(&chrono::Local).fixed_offset()
}

impl Scripted {
    fn new(services: Services, begin: Begin, script: Arc<Script>) -> Self {
        let mut vars = Vars::default();
        let shown = if begin.caller.restricted { "" } else { &begin.caller.number };
        vars.set("CGPN", shown);
        vars.set("CDPN", &begin.called);
        vars.set("CGPN_NAME", if begin.caller.restricted { "" } else { &begin.caller.name });
        let run = Run::new(script, vars, wall(&services.node));
        Self { services, begin, run, listening: None, ear: None, ears: 0 }
    }

    fn wish(&self, wish: AppWish, cx: &Cx<'_, Self>) -> Result<(), ExitReason> {
        // A call that has gone wants nothing more; its end ends this too.
        if let Ok(call) = cx.lookup::<CallMsg>(&self.begin.call) {
            let _ = call.tell(CallMsg::App(wish));
        }
        Ok(())
    }

    fn step(&mut self, event: Event, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        let effects = self.run.handle(wall(&self.services.node), event);
        for effect in effects {
            match effect {
                Effect::Play(prompt) => self.play(prompt, cx),
                Effect::Quiet => self.wish(AppWish::Quiet, cx)?,
                Effect::Listen { service, phrases } => self.listen(service, phrases, cx)?,
                Effect::Deaf => {
                    self.listening = None;
                    self.ear = None;
                    self.wish(AppWish::Deaf, cx)?;
                }
                Effect::After(delay, timer) => cx.after(delay, AppEvent::Due(timer)),
                Effect::Http { method, url, headers, timeout, limit } => {
                    cx.spawn(request(method, url, headers, timeout, limit), |me, answer, cx| {
                        me.step(Event::Http(answer), cx)
                    });
                }
                Effect::Dial { number, patience } => self.wish(AppWish::Dial { number, patience }, cx)?,
                Effect::Note(text) => {
                    tracing::debug!(call = %self.begin.call, script = %self.begin.script, "{text}")
                }
                Effect::Hangup => self.wish(AppWish::Hangup, cx)?,
            }
        }
        if self.run.is_over() { Err(ExitReason::Normal) } else { Ok(()) }
    }

    fn play(&mut self, prompt: Prompt, cx: &mut Cx<'_, Self>) {
        let (prompts, files) = (self.services.prompts.clone(), self.services.files.clone());
        let made = async move {
            match prompt {
                Prompt::File(path) => {
                    let path = files.join(path);
                    if path.is_file() { Ok(path) } else { Err(format!("no file {}", path.display())) }
                }
                Prompt::Speech { text, voice, speed } => match prompts {
                    Some(prompts) => {
                        prompts.say(Text { text, voice, speed }).await.map_err(|e| e.to_string())
                    }
                    None => Err("[speech] synthesis names nobody who speaks".to_owned()),
                },
            }
        };
        cx.spawn(made, |me, made, cx| match made {
            Ok(path) => me.wish(AppWish::Play(path), cx),
            Err(e) => {
                // The script goes on: what follows is better than silence for ever.
                tracing::error!(script = %me.begin.script, error = %e, "a prompt is not heard");
                me.step(Event::Played, cx)
            }
        });
    }

    fn listen(
        &mut self,
        service: Option<String>,
        phrases: Vec<String>,
        cx: &mut Cx<'_, Self>,
    ) -> Result<(), ExitReason> {
        let asr = self.services.estate.picture().terms(self.services.node.clock().now()).asr;
        if !asr {
            tracing::warn!(script = %self.begin.script, "the licence does not grant speech recognition");
            return Ok(());
        }
        let (feed, hearing) = mpsc::channel(HEARING);
        let (tell, told) = mpsc::unbounded_channel();
        self.ears += 1;
        let ear = self.ears;
        self.ear = Some(ear);
        let listener = Listener {
            speech: self.services.speech.clone(),
            service,
            phrases,
            // Pieces of one conversation, for the attendant.
            name: format!("{}{ear}", cx.address().as_str().rsplit('/').next().unwrap_or("ivr")),
        };
        self.listening = Some(Listening { task: tokio::task::spawn_local(listener.run(hearing, tell)) });
        self.wish(AppWish::Listen(Feed(feed)), cx)?;
        self.await_ear(ear, told, cx);
        Ok(())
    }

    /// What an ear tells next, as long as it is the one that counts.
    fn await_ear(&mut self, ear: u64, mut told: mpsc::UnboundedReceiver<Event>, cx: &mut Cx<'_, Self>) {
        let next = async move { (told.recv().await, told) };
        cx.spawn(next, move |me, (event, told), cx| {
            let Some(event) = event.filter(|_| me.ear == Some(ear)) else { return Ok(()) };
            me.step(event, cx)?;
            if me.ear == Some(ear) {
                me.await_ear(ear, told, cx);
            }
            Ok(())
        });
    }
}

/// A request of a script; its outcome.
async fn request(
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    timeout: Duration,
    limit: usize,
) -> Result<String, String> {
    let client = awc::Client::builder().timeout(timeout).finish();
    let method = method.parse::<awc::http::Method>().map_err(|e| e.to_string())?;
    let mut request = client.request(method, &url);
    for (name, value) in headers {
        request = request.insert_header((name, value));
    }
    let mut answer = request.send().await.map_err(|e| e.to_string())?;
    if !answer.status().is_success() {
        return Err(answer.status().to_string());
    }
    let body = answer.body().limit(limit).await.map_err(|e| e.to_string())?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// Listens to a caller: cuts what it says at its pauses, and has each piece understood.
struct Listener {
    speech: Speech,
    service: Option<String>,
    phrases: Vec<String>,
    name: String,
}

impl Listener {
    async fn run(self, mut hearing: mpsc::Receiver<Box<[i16; 160]>>, tell: mpsc::UnboundedSender<Event>) {
        let Ok(mut rate) = Rate::new(8000, RATE) else { return };
        let mut cutter = Cutter::new(Pauses::DIALOGUE);
        let (mut speaking, mut piece) = (false, 0_u32);
        while let Some(frame) = hearing.recv().await {
            let plain: Vec<f32> = frame.iter().map(|s| f32::from(*s) / 32_768.0).collect();
            let Ok(wide) = rate.push(&plain) else { return };
            let utterances = cutter.push(&wide);
            if cutter.speaking() && !speaking {
                drop(tell.send(Event::Speaks));
            }
            speaking = cutter.speaking();
            for utterance in utterances {
                piece += 1;
                let event = self.understand(utterance.samples, piece).await;
                if tell.send(event).is_err() {
                    return;
                }
            }
        }
    }

    async fn understand(&self, samples: Vec<f32>, piece: u32) -> Event {
        if !self.phrases.is_empty() {
            let dictionary = self.speech.clerk.picture().dictionary();
            let task = Task::whole(Grammar::phrases(&self.phrases), dictionary);
            match self.speech.closed.hear(task, samples.clone()).await {
                Ok(heard) if heard.hypotheses.first().is_some_and(|h| h.confidence >= 0.5) => {
                    return Event::Phrase(heard.text().to_owned());
                }
                Ok(_) if self.service.is_none() => return Event::Phrase(String::new()),
                Ok(_) => {}
                Err(e) => {
                    tracing::warn!(error = %e, "what a caller said is lost");
                    return Event::Unheard;
                }
            }
        }
        let Some(service) = &self.service else { return Event::Unheard };
        match self.ask(service, samples, piece).await {
            Ok(answer) => Event::Answered(answer),
            Err(e) => {
                tracing::warn!(error = %e, "what a caller said is lost");
                Event::Unheard
            }
        }
    }

    /// Gives a piece to an auto-attendant (manual, "Автосекретарь").
    async fn ask(&self, service: &str, samples: Vec<f32>, piece: u32) -> Result<Answer, String> {
        let mut rate = Rate::new(RATE, 8000).map_err(|e| e.to_string())?;
        let mut low = rate.push(&samples).map_err(|e| e.to_string())?;
        low.extend(rate.finish().map_err(|e| e.to_string())?);
        let bytes: Vec<u8> = to_i16(&low).iter().flat_map(|s| s.to_le_bytes()).collect();
        let client = awc::Client::builder().timeout(PATIENCE).finish();
        let url = format!("http://{service}/{}-{piece}.pcm", self.name);
        let mut answer = client.post(&url).send_body(bytes).await.map_err(|e| e.to_string())?;
        let status = answer.status();
        if status != awc::http::StatusCode::OK && status != awc::http::StatusCode::PARTIAL_CONTENT {
            return Err(format!("the attendant answers {status}"));
        }
        let body: serde_json::Value = answer.json().limit(64 << 10).await.map_err(|e| e.to_string())?;
        let text = |name: &str| body.get(name).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
        Ok(Answer {
            recognised: text("recognized"),
            number: Some(text("number")).filter(|n| !n.is_empty()),
            positive: text("positive_url"),
            negative: text("negative_url"),
        })
    }
}

impl Actor for Scripted {
    type Msg = AppEvent;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        // A call that has gone needs nobody to talk to its caller.
        let call = self.begin.call.clone();
        cx.monitor(&call, |_| AppEvent::Ended);
        self.step(Event::Begin, cx)
    }

    fn handle(&mut self, event: AppEvent, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        self.step(
            match event {
                AppEvent::Key(key) => Event::Key(key),
                AppEvent::Played => Event::Played,
                AppEvent::Failed(cause) => Event::Failed(cause),
                AppEvent::Connected => Event::Connected,
                AppEvent::Ended => Event::Ended,
                AppEvent::Due(timer) => Event::Due(timer),
            },
            cx,
        )
    }

    /// Names and numbers are the caller's.
    fn inspect(&self) -> serde_json::Value {
        serde_json::json!({ "script": self.begin.script, "block": self.run.at() })
    }
}
