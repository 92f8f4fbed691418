//! `hypha replay`: scenario scripts, on an in-process node in virtual time or against a running node.

mod attach;
mod phone;
mod player;
mod point;
mod report;
mod script;

use std::{net::SocketAddr, path::PathBuf};

pub use script::Script;

#[derive(clap::Args)]
pub struct Options {
    /// Scenario scripts (YAML).
    #[arg(required = true)]
    pub scripts: Vec<PathBuf>,
    /// Play the CoCon steps against the node whose SSH listens here; the password is read from HYPHA_PASSWORD.
    #[arg(long)]
    pub attach: Option<SocketAddr>,
    /// Operator to log in as with --attach.
    #[arg(long, default_value = "admin")]
    pub user: String,
    /// The node's host key fingerprint (SHA256:…); needed when --attach is not a loopback address.
    #[arg(long)]
    pub host_key: Option<String>,
    /// Where a running node's SIP listens for the phones of the script; asked of the node when left out.
    #[arg(long)]
    pub sip: Option<SocketAddr>,
    /// Number of the running node's interception equipment.
    #[arg(long, default_value_t = 1)]
    pub sorm: u8,
    /// Seed instead of the script's.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Write an HTML report here.
    #[arg(long)]
    pub report: Option<PathBuf>,
    /// Write what was said and which messages went between actors here.
    #[arg(long)]
    pub trace: Option<PathBuf>,
    /// Print every step, not only failed ones.
    #[arg(long)]
    pub verbose: bool,
}

type Error = Box<dyn std::error::Error>;

/// Plays all scripts; `true` when every expectation of every script held.
pub fn play_all(options: &Options) -> Result<bool, Error> {
    let scripts: Vec<Script> = options.scripts.iter().map(|p| Script::read(p)).collect::<Result<_, _>>()?;
    let mut runs = Vec::new();
    for mut script in scripts {
        script.seed = options.seed.unwrap_or(script.seed);
        let run = match options.attach {
            None => player::play(&script)?,
            Some(address) => attach::play(&script, address, options)?,
        };
        report::terminal(&run, options.verbose);
        runs.push(run);
    }
    if let Some(path) = &options.report {
        std::fs::write(path, report::html(&runs))
            .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    }
    if let Some(path) = &options.trace {
        let text: String = runs.iter().map(report::trace).collect();
        std::fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    }
    let (passed, failed) = runs.iter().fold((0, 0), |(p, f), r| (p + r.passed(), f + r.failed()));
    println!("{passed} steps passed, {failed} failed");
    Ok(failed == 0)
}
