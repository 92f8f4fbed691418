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
use kit::{
    Actor, Address, ChildSpec, Cx, ExitReason, Node, Restart, SupervisorHandle, journal::Origin, ledger,
};
use speech::{
    Speech,
    audio::{Rate, to_i16},
    grammar::Grammar,
    recogniser::{RATE, Task},
    synthesis::{Prompts, Text},
    vad::{Cutter, Pauses},
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    library::Library,
    mail::{self, Letter, MailBook, MailChange, MailError, Mailbox, Mailboxes},
    queue::{self, Join, QueueMsg},
    run::{Answer, Effect, Event, QueueNews, RecordTo, Recorded, Run},
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
    /// Where recordings and messages go; none: they are not kept (replays).
    pub data: Option<PathBuf>,
    pub library: Arc<ArcSwap<Library>>,
    pub mail: Arc<ArcSwap<Mailboxes>>,
}

/// The supervisor of the scripts being run.
pub const RUNS: &str = "ivr/runs";
/// Samples of a recording at most: half an hour.
const LONGEST_RECORDING: usize = 8000 * 1_800;
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
    /// What ends the recording under way; dropped, it goes on to the call's end.
    recording: Option<oneshot::Sender<()>>,
    /// The queue the caller waits in, and which of its news count.
    queue: Option<(Address, u64)>,
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
        Self { services, begin, run, listening: None, ear: None, ears: 0, recording: None, queue: None }
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
                Effect::Listen { service, phrases, grammar } => self.listen(service, phrases, grammar, cx)?,
                Effect::Record(to) => self.record(to, cx)?,
                Effect::RecordStop => {
                    if let Some(stop) = self.recording.take() {
                        // A recording that has ended by itself tells so.
                        let _ = stop.send(());
                    }
                }
                Effect::MailList(mailbox) => {
                    let mail = self.services.mail.load();
                    let all = mail.get(&self.begin.domain, &mailbox).map_or_else(Vec::new, Mailbox::order);
                    cx.spawn(async {}, |me, (), cx| me.step(Event::Mail(all), cx));
                }
                Effect::PlayMail(mailbox, id) => self.play_mail(&mailbox, id, cx)?,
                Effect::MailHeard(mailbox, id) => {
                    let domain = self.begin.domain.clone();
                    self.mail(MailChange::Hear { domain, mailbox, id });
                }
                Effect::MailRemove(mailbox, id) => {
                    let domain = self.begin.domain.clone();
                    self.mail(MailChange::Remove { domain, mailbox, id });
                }
                Effect::Join { queue, agents, most } => self.join(&queue, agents, most, cx),
                Effect::Missed(agent) => self.tell_queue(|script| QueueMsg::Missed(script, agent), cx),
                Effect::LeaveQueue => {
                    self.tell_queue(QueueMsg::Leave, cx);
                    self.queue = None;
                }
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
                // Variables may have brought it anything.
                Prompt::File(path) if path.split('/').any(|p| p == ".." || p.starts_with('.')) => {
                    Err(format!("{path} is no file of the node's prompts"))
                }
                Prompt::File(path) => {
                    let path = files.join(path.trim_start_matches('/'));
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

    /// What a caller says, kept: to the end of the call if nobody ends it before.
    fn record(&mut self, to: RecordTo, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        let (feed, hearing) = mpsc::channel(HEARING);
        let (tell, told) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        self.ears += 1;
        let ear = self.ears;
        (self.ear, self.recording) = (Some(ear), Some(stop));
        let keeper = Keeper { services: self.services.clone(), begin: self.begin.clone(), to };
        // Not this actor's to abort: what was said before the caller hung up is kept.
        tokio::task::spawn_local(keeper.run(hearing, stopped, tell));
        self.wish(AppWish::Listen(Feed(feed)), cx)?;
        self.await_ear(ear, told, cx);
        Ok(())
    }

    fn play_mail(&mut self, mailbox: &str, id: u64, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        let data = self.services.data.as_ref();
        let path = data.map(|d| mail::file(d, &self.begin.domain, mailbox, id)).filter(|p| p.is_file());
        match path {
            Some(path) => self.wish(AppWish::Play(path), cx),
            None => {
                tracing::error!(script = %self.begin.script, "a message has no sound");
                cx.spawn(async {}, |me, (), cx| me.step(Event::Played, cx));
                Ok(())
            }
        }
    }

    /// Changes a mailbox, also when the script ends meanwhile.
    fn mail(&self, change: MailChange) {
        let services = self.services.clone();
        let origin = Origin { who: "ivr".into(), from: self.begin.call.to_string() };
        tokio::task::spawn_local(async move {
            if let Err(e) = mail::change(&services.node, services.data.as_deref(), change, origin).await {
                tracing::error!(error = %e, "a mailbox stays as it was");
            }
        });
    }

    fn join(&mut self, queue: &str, agents: Vec<String>, most: usize, cx: &mut Cx<'_, Self>) {
        let (tell, told) = mpsc::unbounded_channel();
        self.ears += 1;
        let news = self.ears;
        let address = match queue::address(&self.begin.domain, queue) {
            Ok(address) => address,
            Err(e) => {
                let e = e.to_string();
                return cx.spawn(async {}, move |me, (), cx| me.no_queue(&e, cx));
            }
        };
        self.queue = Some((address.clone(), news));
        let (node, script, call) =
            (self.services.node.clone(), cx.address().clone(), self.begin.call.clone());
        let join = Join { script, call, agents, most, tell };
        let joined = async move { queue::join(&node, &address, join).await };
        cx.spawn(joined, move |me, joined, cx| match joined {
            Ok(()) => {
                me.await_queue(news, told, cx);
                Ok(())
            }
            Err(e) => me.no_queue(&e, cx),
        });
    }

    fn no_queue(&mut self, e: &str, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        tracing::error!(script = %self.begin.script, error = e, "nobody can wait in a queue");
        self.step(Event::Queue(QueueNews::Full), cx)
    }

    /// What the queue tells next, as long as the caller waits in it.
    fn await_queue(&mut self, news: u64, mut told: mpsc::UnboundedReceiver<Event>, cx: &mut Cx<'_, Self>) {
        let next = async move { (told.recv().await, told) };
        cx.spawn(next, move |me, (event, told), cx| {
            let counts = |me: &Self| me.queue.as_ref().is_some_and(|(_, n)| *n == news);
            if !counts(me) {
                return Ok(());
            }
            // A queue that has gone calls nobody.
            let gone = event.is_none();
            me.step(event.unwrap_or(Event::Queue(QueueNews::Full)), cx)?;
            if !gone && counts(me) {
                me.await_queue(news, told, cx);
            }
            Ok(())
        });
    }

    fn tell_queue(&self, make: impl FnOnce(Address) -> QueueMsg, cx: &Cx<'_, Self>) {
        if let Some((queue, _)) = &self.queue
            && let Ok(queue) = cx.lookup::<QueueMsg>(queue)
        {
            // One that does not listen learns of this script's end.
            let _ = queue.tell(make(cx.address().clone()));
        }
    }

    fn listen(
        &mut self,
        service: Option<String>,
        phrases: Vec<String>,
        grammar: Option<String>,
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
            grammar,
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
pub(crate) struct Listener {
    pub(crate) speech: Speech,
    pub(crate) service: Option<String>,
    pub(crate) phrases: Vec<String>,
    pub(crate) grammar: Option<String>,
    pub(crate) name: String,
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

    pub(crate) async fn understand(&self, samples: Vec<f32>, piece: u32) -> Event {
        let dictionary = || self.speech.clerk.picture().dictionary();
        let own =
            self.grammar.as_ref().map(|name| self.speech.clerk.lexicon.load().grammars.get(name).cloned());
        let task = match own {
            Some(Some(grammar)) => Some(Task::of(grammar, dictionary())),
            Some(None) => {
                let name = self.grammar.as_deref().unwrap_or_default();
                tracing::error!(grammar = name, "there is no such grammar among the operator's files");
                return Event::Unheard;
            }
            None if self.phrases.is_empty() => None,
            None => Some(Task::whole(Grammar::phrases(&self.phrases), dictionary())),
        };
        if let Some(task) = task {
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

/// Keeps what a caller says.
struct Keeper {
    services: Services,
    begin: Begin,
    to: RecordTo,
}

impl Keeper {
    async fn run(
        self,
        mut hearing: mpsc::Receiver<Box<[i16; 160]>>,
        mut stopped: oneshot::Receiver<()>,
        tell: mpsc::UnboundedSender<Event>,
    ) {
        let Ok(mut rate) = Rate::new(8000, RATE) else { return };
        let mut cutter = Cutter::new(Pauses::DIALOGUE);
        let (mut samples, mut speaking, mut spoken) = (Vec::<i16>::new(), false, false);
        let mut sent = false;
        loop {
            let frame = tokio::select! {
                frame = hearing.recv() => frame,
                told = &mut stopped, if !sent => {
                    sent = true;
                    match told {
                        Ok(()) => None,
                        // The script has gone; the call's end ends the recording.
                        Err(_) => continue,
                    }
                }
            };
            let Some(frame) = frame.filter(|_| samples.len() < LONGEST_RECORDING) else { break };
            samples.extend_from_slice(&*frame);
            let plain: Vec<f32> = frame.iter().map(|s| f32::from(*s) / 32_768.0).collect();
            let Ok(wide) = rate.push(&plain) else { break };
            let over = !cutter.push(&wide).is_empty();
            spoken |= cutter.speaking() || over;
            if cutter.speaking() && !speaking {
                drop(tell.send(Event::Speaks));
            }
            if over {
                drop(tell.send(Event::Silent));
            }
            speaking = cutter.speaking();
        }
        let kept =
            if spoken { self.keep(samples).await } else { Ok(Recorded { file: String::new(), seconds: 0 }) };
        drop(tell.send(Event::Recorded(kept)));
    }

    /// Puts a recording away; else the outcome.
    async fn keep(&self, samples: Vec<i16>) -> Result<Recorded, String> {
        let error = |e: &dyn std::fmt::Display| {
            tracing::error!(script = %self.begin.script, error = %e, "what a caller said is not kept");
            "Error".to_owned()
        };
        let data = self.services.data.clone().ok_or_else(|| error(&"nothing is kept here"))?;
        let seconds = (samples.len() as u64).div_ceil(8000);
        let domain = self.begin.domain.clone();
        let at = self.services.node.clock().now();
        let write = |path: PathBuf| async move {
            let written = tokio::task::spawn_blocking(move || {
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent).map_err(|e| e.to_string())?;
                }
                speech::audio::write(&path, &samples).map_err(|e| e.to_string())
            });
            written.await.map_err(|e| e.to_string())?
        };
        match &self.to {
            RecordTo::File => {
                let id = self.services.node.random_id();
                let name = format!("{}-{id:08x}.wav", at.format("%Y%m%d-%H%M%S"));
                let path = data.join("recordings/ivr").join(&domain).join(name);
                let file = path.display().to_string();
                write(path).await.map_err(|e| error(&e))?;
                Ok(Recorded { file, seconds })
            }
            RecordTo::Mailbox(mailbox) => {
                let known = self.services.estate.picture();
                if !known.domains.get(&domain).is_some_and(|d| d.aliases.contains_key(mailbox)) {
                    return Err(error(&"there is no number for the mailbox"));
                }
                let caller = &self.begin.caller;
                let from = if caller.restricted { String::new() } else { caller.number.clone() };
                let letter = Letter { at, from, seconds, heard: false };
                let origin = Origin { who: "ivr".into(), from: self.begin.call.to_string() };
                let change = MailChange::Leave { domain: domain.clone(), mailbox: mailbox.clone(), letter };
                // The number first: a message without sound is told of, sound without a message is never heard.
                let left =
                    ledger::change_at::<MailBook>(&self.services.node, mail::NAME, change, origin).await;
                let id = match left {
                    Ok(id) => id,
                    Err(ledger::LedgerError::Refused(MailError::Full(_))) => return Err("Full".to_owned()),
                    Err(e) => return Err(error(&e)),
                };
                let path = mail::file(&data, &domain, mailbox, id);
                let file = path.display().to_string();
                write(path).await.map_err(|e| error(&e))?;
                Ok(Recorded { file, seconds })
            }
        }
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
