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
use kit::{Actor, Address, ChildSpec, Cx, ExitReason, Node, journal::Origin};
use speech::{
    Speech,
    synthesis::{Prompts, Text},
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    Reach,
    hearing::{self, Listener},
    keeper::Keeper,
    library::Library,
    mail::{self, MailChange, Mailbox, Mailboxes},
    queue::{self, Join, QueueMsg},
    run::{Effect, Event, QueueNews, RecordTo, Run},
    script::{Prompt, Script, is_prompt_file},
    tree,
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
    /// Where scripts may reach over HTTP.
    pub reach: Reach,
}

/// The supervisor of the scripts being run.
pub const RUNS: &str = "ivr/runs";

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
            let node = services.node.clone();
            let spec = ChildSpec::worker(name.clone(), move |_| {
                let scripted = Scripted::new(services.clone(), begin.clone(), script.clone());
                async move { Ok(scripted) }
            });
            tree::start(&node, RUNS, spec).await?;
            Ok(name)
        })
    }
}

/// The actor.
struct Scripted {
    services: Services,
    begin: Begin,
    run: Run,
    /// The listener that counts: what an earlier one may yet tell is of no use.
    ear: Option<u64>,
    ears: u64,
    /// What ends the recording under way; dropped, it goes on to the call's end.
    recording: Option<oneshot::Sender<()>>,
    /// The queue the caller waits in, and which of its news count.
    queue: Option<(Address, u64)>,
}

pub(crate) fn wall(node: &Node) -> DateTime<FixedOffset> {
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
        Self { services, begin, run, ear: None, ears: 0, recording: None, queue: None }
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
                    self.ear = None;
                    self.wish(AppWish::Deaf, cx)?;
                }
                Effect::After(delay, timer) => cx.after(delay, AppEvent::Due(timer)),
                Effect::Http { method, url, headers, timeout, limit } => {
                    let reach = self.services.reach.clone();
                    cx.spawn(request(reach, method, url, headers, timeout, limit), |me, answer, cx| {
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
                Prompt::File(path) if !is_prompt_file(&path) => {
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
                // A queue that has gone calls nobody.
                let counts = move |me: &Self| me.queue.as_ref().is_some_and(|(_, n)| *n == news);
                me.await_news(told, Event::Queue(QueueNews::Full), counts, cx);
                Ok(())
            }
            Err(e) => me.no_queue(&e, cx),
        });
    }

    fn no_queue(&mut self, e: &str, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        tracing::error!(script = %self.begin.script, error = e, "nobody can wait in a queue");
        self.step(Event::Queue(QueueNews::Full), cx)
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
            reach: self.services.reach.clone(),
        };
        let starting = hearing::start(
            self.services.node.clone(),
            format!("{}/asr/{ear}", cx.address()),
            listener,
            hearing,
            tell,
        );
        cx.spawn(starting, |me, started, _| match started {
            Ok(()) => Ok(()),
            Err(e) => {
                // It has lost its voice with that, and the caller is asked again.
                tracing::error!(script = %me.begin.script, error = %e, "nobody listens to a caller");
                Ok(())
            }
        });
        self.wish(AppWish::Listen(Feed(feed)), cx)?;
        self.await_ear(ear, told, cx);
        Ok(())
    }

    /// What an ear or a queue tells next, as long as it counts; `gone` is what its end without a word means.
    fn await_news(
        &mut self,
        mut told: mpsc::UnboundedReceiver<Event>,
        gone: Event,
        counts: impl Fn(&Self) -> bool + 'static,
        cx: &mut Cx<'_, Self>,
    ) {
        let next = async move { (told.recv().await, told) };
        cx.spawn(next, move |me, (event, told), cx| {
            if !counts(me) {
                return Ok(());
            }
            let Some(event) = event else { return me.step(gone, cx) };
            me.step(event, cx)?;
            if counts(me) {
                me.await_news(told, gone, counts, cx);
            }
            Ok(())
        });
    }

    /// An ear that has crashed is a retry.
    fn await_ear(&mut self, ear: u64, told: mpsc::UnboundedReceiver<Event>, cx: &mut Cx<'_, Self>) {
        self.await_news(told, Event::Unheard, move |me| me.ear == Some(ear), cx);
    }
}

/// A request of a script; its outcome.
async fn request(
    reach: Reach,
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    timeout: Duration,
    limit: usize,
) -> Result<String, String> {
    let method = method.parse::<awc::http::Method>().map_err(|e| e.to_string())?;
    let mut request = reach.request(method, &url, timeout).await.map_err(|e| e.to_string())?;
    for (name, value) in headers.into_iter().filter(|(n, _)| !n.eq_ignore_ascii_case("host")) {
        request = request.insert_header((name, value));
    }
    let mut answer = request.send().await.map_err(|e| e.to_string())?;
    if !answer.status().is_success() {
        return Err(answer.status().to_string());
    }
    let body = answer.body().limit(limit).await.map_err(|e| e.to_string())?;
    Ok(String::from_utf8_lossy(&body).into_owned())
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
