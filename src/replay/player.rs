//! Plays a script on a node in this process: one thread, virtual time, seeded identities.

use std::{sync::Arc, time::Duration};

use command::{Caller, Grants, Outcome, Session};
use kit::{Address, Clock, ExitReason, Node, journal::MemoryJournal, trace::Traced};
use store::KeyFile;

use super::{
    Error,
    report::{Played, Run},
    script::{Script, Step},
};
use crate::boot::{Assembly, Parts, end_of};

/// Virtual time given to what a step sets off.
const SETTLE: Duration = Duration::from_millis(10);

pub fn play(script: &Script) -> Result<Run, Error> {
    let system = actix::System::with_tokio_rt(|| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().start_paused(true).build();
        // There is no way on without a runtime, and none to say so but this.
        runtime.unwrap_or_else(|e| panic!("no runtime: {e}"))
    });
    system.block_on(play_here(script))
}

async fn play_here(script: &Script) -> Result<Run, Error> {
    let clock = Clock::simulated(script.start);
    let node = Node::builder("ds1@ecss1").clock(clock).seed(script.seed).build();
    node.trace().record_everything();
    let parts = Parts {
        node: node.clone(),
        journal: Arc::new(MemoryJournal::default()),
        vault: Arc::new(KeyFile::ephemeral()),
        imports: script.files(),
        host: "ecss1".into(),
        vendor_key: None,
        token: None,
        token_check: std::time::Duration::from_secs(60),
        media: Arc::new(call::media::Mute),
        cdr: None,
    };
    let assembly = Assembly::new(parts)?.with_domains()?.with_sip(None, sip::Offer::default())?;
    let root = assembly.start().await?;
    let caller = Caller { name: "admin".into(), from: "replay".into(), grants: Grants::system() };
    let mut session = Session::new(assembly.tree.clone(), assembly.info(), clock, caller);
    let mut run = Run::new(script);
    for (i, step) in script.steps.iter().enumerate() {
        let at = clock.now();
        let (said, misses) = one(step, &node, &mut session).await;
        tokio::time::sleep(SETTLE).await;
        let messages: Vec<Traced> = node.trace().take_record();
        run.steps.push(Played { number: i + 1, at, step: step.clone(), said, misses, messages });
    }
    root.exit(ExitReason::Shutdown);
    end_of(&root).await;
    Ok(run)
}

async fn one(step: &Step, node: &Node, session: &mut Session) -> (String, Vec<String>) {
    if let Some(line) = &step.cocon {
        let (answer, outcome) = session.execute_alone(line, None).await;
        let (text, status) = match outcome {
            Outcome::Said { text, status } => (text, status),
            _ => (String::new(), 0),
        };
        let data = answer.ok().map(|a| a.to_json());
        let misses = step.expect.misses(status, &text, data.as_ref());
        return (text, misses);
    }
    if let Some(pause) = step.pause() {
        tokio::time::sleep(pause).await;
        return Default::default();
    }
    let Some(name) = step.crash.as_ref().or(step.actor.as_ref()) else { return Default::default() };
    let cell = Address::new(name).ok().and_then(|a| node.registry().find(&a));
    match cell {
        None => (String::new(), vec![format!("there is no actor {name}")]),
        Some(cell) if step.crash.is_some() => {
            cell.exit(ExitReason::Killed);
            (format!("killed pid {}\n", cell.pid()), Vec::new())
        }
        Some(cell) => {
            let seen = cell.restarts();
            let miss = step.expect.restarts.filter(|r| *r != seen);
            let misses = miss.map(|r| format!("{r} restarts were expected, {seen} were seen"));
            (format!("running, {seen} restarts\n"), misses.into_iter().collect())
        }
    }
}
