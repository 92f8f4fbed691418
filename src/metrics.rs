//! Metrics for Prometheus, and the actor that keeps them current.

use std::{sync::Arc, time::Duration};

use kit::{Actor, Address, AddressError, ChildSpec, Cx, ExitReason, Node};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;
use strum::IntoStaticStr;

/// Upper bounds of the time histograms' buckets, seconds.
const BUCKETS: &[f64] = &[0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];
const RINGING: &[f64] = &[1.0, 3.0, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 120.0];
const TALKING: &[f64] = &[5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0];
/// Scores and percents.
const SCORES: &[f64] = &[1.5, 2.0, 2.5, 3.0, 3.5, 3.8, 4.0, 4.2, 4.4];
const LOST: &[f64] = &[0.1, 0.3, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0];
const EVERY: Duration = Duration::from_secs(5);

/// The process's metrics; clones share them.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
    process: Collector,
}

impl Metrics {
    /// Takes the process's metrics from now on.
    pub fn install() -> Result<Self, BuildError> {
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), BUCKETS)?
            .set_buckets_for_metric(Matcher::Full("hypha_call_answer_seconds".into()), RINGING)?
            .set_buckets_for_metric(Matcher::Full("hypha_call_talk_seconds".into()), TALKING)?
            .set_buckets_for_metric(Matcher::Full("hypha_call_mos".into()), SCORES)?
            .set_buckets_for_metric(Matcher::Full("hypha_call_lost_percent".into()), LOST)?
            .install_recorder()?;
        describe();
        let process = Collector::default();
        process.describe();
        Ok(Self { handle, process })
    }

    /// What `/metrics` answers (Prometheus text format 0.0.4).
    pub fn page(&self, node: &Node) -> Arc<dyn Fn() -> String + Send + Sync> {
        let (metrics, node) = (self.clone(), node.clone());
        Arc::new(move || {
            metrics.process.collect();
            observe(&node);
            metrics.handle.render()
        })
    }

    /// The actor `metrics`: lets histograms settle even while nobody asks.
    pub fn child(&self) -> Result<ChildSpec, AddressError> {
        let metrics = self.clone();
        Ok(ChildSpec::worker(Address::new("metrics")?, move |_| {
            let metrics = metrics.clone();
            async move { Ok(Upkeep { metrics, rounds: 0 }) }
        }))
    }
}

fn describe() {
    use ::metrics::{Unit, describe_counter as counter, describe_gauge as gauge, describe_histogram};
    gauge!("hypha_actors", "Actors running, by type");
    gauge!("hypha_mailbox_depth", "Messages waiting, by type of actor");
    counter!("hypha_messages_handled_total", "Messages handled, by type of actor");
    counter!("hypha_messages_refused_total", "Messages given back for a full mailbox, by type of actor");
    counter!("hypha_handler_busy_microseconds_total", Unit::Microseconds, "Time in handlers, by type");
    counter!("hypha_actor_crashes_total", "Abnormal ends of actors");
    counter!("hypha_actor_restarts_total", "Restarts by supervisors");
    counter!("hypha_commands_total", "Commands run, by path and outcome");
    describe_histogram!("hypha_command_seconds", Unit::Seconds, "Time a command took");
    counter!("hypha_journal_events_total", "Events appended");
    counter!("hypha_journal_commits_total", "Transactions committed");
    describe_histogram!("hypha_journal_commit_seconds", Unit::Seconds, "Time a group commit took");
    gauge!("hypha_journal_waiting", "Appends waiting for the journal's writer");
    gauge!("hypha_alarms", "Alarms that hold and are not masked, by class and severity");
    counter!("hypha_alarms_raised_total", "Alarms raised, by class");
    counter!("hypha_calls_attempted_total", "Calls that came in, by domain");
    counter!("hypha_calls_answered_total", "Calls that were answered, by the caller's domain");
    counter!(
        "hypha_calls_ended_total",
        "Calls that ended, by the caller's domain, cause (Q.850) and whether they were answered"
    );
    counter!(
        "hypha_trunk_calls_ended_total",
        "Calls over a trunk that ended, by domain, trunk, direction and cause"
    );
    gauge!("hypha_trunk_up", "1 while the trunk's neighbour answers, by domain and trunk");
    describe_histogram!("hypha_call_setup_seconds", Unit::Seconds, "Time until a caller heard that it rings");
    describe_histogram!("hypha_call_answer_seconds", Unit::Seconds, "Time until a call was answered");
    describe_histogram!("hypha_call_talk_seconds", Unit::Seconds, "Length of conversations");
    describe_histogram!(
        "hypha_call_mos",
        "Mean opinion score of each leg at its end (E-model, G.107), 1 to 4.5"
    );
    describe_histogram!("hypha_call_lost_percent", "Packets of each leg that never came, percent");
    describe_histogram!("hypha_call_jitter_seconds", Unit::Seconds, "Jitter of each leg at its end");
    counter!("hypha_logins_total", "Log-ins of operators, by door");
    counter!("hypha_logins_refused_total", "Log-ins of operators that were refused, by reason");
    counter!("hypha_sip_auth_failures_total", "SIP authentications that failed, by reason");
    gauge!("hypha_journal_bytes", Unit::Bytes, "Size of the journal");
    gauge!("hypha_journal_log_bytes", Unit::Bytes, "Size of its write-ahead log");
    gauge!("hypha_disk_free_bytes", Unit::Bytes, "Free space where the data is");
    gauge!("hypha_licence_holds", "1 while the licence, or the evaluation, holds");
    gauge!("hypha_sip_registrations", "Contacts registered");
    counter!("hypha_sorm_overloaded_total", "Phases of calls that an interception had no room for");
    counter!("hypha_sorm_content_missing_total", "Taps that had to be asked for again");
    counter!("hypha_sorm_stray_taps_total", "Taps that nobody had ordered, ended");
    counter!("hypha_mediator_discarded_total", "Messages deleted unsent, since no command came in time");
    gauge!("hypha_mediator_waiting", "Messages that a data channel or the handover has not taken yet");
    counter!("hypha_mediator_missing_total", "Notifications of stations that never came");
    counter!("hypha_sip_responses_total", "Answers to SIP requests, by status code");
}

fn observe(node: &Node) {
    for (actor, total) in node.totals().0 {
        ::metrics::gauge!("hypha_actors", "actor" => actor).set(total.actors as f64);
        ::metrics::gauge!("hypha_mailbox_depth", "actor" => actor).set(total.mailbox as f64);
        ::metrics::counter!("hypha_messages_handled_total", "actor" => actor).absolute(total.handled);
        ::metrics::counter!("hypha_messages_refused_total", "actor" => actor).absolute(total.refused);
        ::metrics::counter!("hypha_handler_busy_microseconds_total", "actor" => actor)
            .absolute(total.busy_us);
    }
}

struct Upkeep {
    metrics: Metrics,
    rounds: u64,
}

#[derive(Debug, IntoStaticStr)]
enum UpkeepMsg {
    Round,
}

impl Actor for Upkeep {
    type Msg = UpkeepMsg;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        cx.after(EVERY, UpkeepMsg::Round);
        Ok(())
    }

    fn handle(&mut self, UpkeepMsg::Round: UpkeepMsg, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        self.metrics.handle.run_upkeep();
        self.rounds += 1;
        cx.after(EVERY, UpkeepMsg::Round);
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::json!({ "rounds": self.rounds })
    }
}
