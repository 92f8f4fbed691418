//! `hypha`: the node, its replays and its tools.

mod ask;
mod boot;
mod commands;
mod config;
mod control_point;
mod drain;
mod inventory;
mod licence;
mod log;
mod mediator;
mod metrics;
mod replay;
mod run;
mod systemd;
mod validate;

use std::{path::PathBuf, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};

/// Messages and calls are many small allocations that come and go.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Pages that calls have left are taken by the calls of the next second; only then the system gets them back.
fn keep_pages() {
    /// `mi_option_purge_delay` of mimalloc 3, in milliseconds; the crate has no name for it.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    // SAFETY: an option of the allocator's, set before there are other threads.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, 1_000) };
}

/// Telecom node: many virtual PBXs as supervised actors in one process.
#[derive(Parser)]
#[command(name = "hypha", version)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Run the node.
    Run {
        /// Configuration file (TOML); without it the defaults hold.
        #[arg(long)]
        config: Option<PathBuf>,
        /// Data directory, instead of the configured one.
        #[arg(long)]
        data: Option<PathBuf>,
        /// Start although a journal has lost changes (its log is damaged, or it is an older copy): they are given up for good.
        #[arg(long)]
        accept_loss: bool,
    },
    /// Run a mediator of interception, between a station and a control point.
    Mediator {
        /// Configuration file (TOML): its [node], [cocon], [sorm] key_file, key_token and
        /// two_persons, [token], [web], [metrics] and [log].
        #[arg(long)]
        config: Option<PathBuf>,
        /// Data directory, instead of the configured one; not a node's.
        #[arg(long)]
        data: Option<PathBuf>,
        /// Start although a journal has lost changes.
        #[arg(long)]
        accept_loss: bool,
    },
    /// Be a control point (ПУ), to try a mediator with: commands in words from standard input, answers to standard output.
    ControlPoint(control_point::Options),
    /// Play scenario scripts; the exit status is 0 when every expectation held.
    Replay(replay::Options),
    /// Check, print or ask for the configuration.
    Config {
        /// Print every key with its default.
        #[arg(long)]
        print: bool,
        /// Check this file.
        #[arg(long)]
        check: Option<PathBuf>,
        /// Ask for every key, and write the answers to this file.
        #[arg(long, conflicts_with_all = ["print", "check"])]
        ask: Option<PathBuf>,
    },
    /// Print what completes this program's words in a shell: bash, zsh, fish.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual's pages into a directory.
    Man {
        /// The directory.
        directory: PathBuf,
    },
    /// Check the audit of interception.
    #[command(subcommand)]
    Audit(Audit),
    /// Make, sign and check licences.
    #[command(subcommand)]
    Licence(licence::Licence),
    /// Look into what is recognised and how.
    #[command(subcommand)]
    Speech(Speech),
    /// Serve a recogniser to the node that started this process.
    #[command(hide = true)]
    Recogniser { engine: speech::Kept, model: PathBuf },
}

#[derive(Subcommand)]
enum Speech {
    /// How words are said: for each line of standard input its likeliest reading, or all of them, one a line.
    Readings {
        /// All readings, with their words, as a .dic file has them.
        #[arg(long)]
        all: bool,
    },
}

/// Reads words by rule.
fn speech(Speech::Readings { all }: Speech) -> Result<(), Box<dyn std::error::Error>> {
    let mut dictionary = speech::dictionary::Dictionary::default();
    for word in std::io::stdin().lines() {
        let word = word?;
        match all {
            true => drop(dictionary.add(word.trim())),
            false => {
                println!("{}", speech::phones::readings(word.trim()).first().cloned().unwrap_or_default())
            }
        }
    }
    print!("{}", dictionary.written());
    Ok(())
}

#[derive(Subcommand)]
enum Audit {
    /// Check that nothing in it was changed, taken out or put in. Keep what is printed elsewhere: a chain whose end was
    /// taken off shows only against it.
    Verify {
        /// Configuration file, for the data directory.
        #[arg(long)]
        config: Option<PathBuf>,
        /// Data directory, instead of the configured one.
        #[arg(long)]
        data: Option<PathBuf>,
    },
}

/// Verifies the chain; its end is printed.
fn audit(Audit::Verify { config, data }: Audit) -> Result<(), Box<dyn std::error::Error>> {
    let data = match data {
        Some(data) => data,
        None => config::Config::read(config.as_deref())?.node.data,
    };
    let head = sorm::audit::verify(&data.join(sorm::audit::FILE))?;
    let at = head.at.map(|at| at.to_rfc3339()).unwrap_or_default();
    println!("ok: {} entries, the last of {at}, digest {}", head.sequence, head.digest);
    Ok(())
}

fn serve(
    config: Option<PathBuf>,
    data: Option<PathBuf>,
    accept_loss: bool,
    program: run::Program,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut config = config::Config::read_right(config.as_deref())?;
    config.node.data = data.unwrap_or(config.node.data);
    run::run(config, program, accept_loss)
}

fn main() -> ExitCode {
    keep_pages();
    let outcome = match Cli::parse().what {
        What::Run { config, data, accept_loss } => serve(config, data, accept_loss, run::Program::Node),
        What::Mediator { config, data, accept_loss } => {
            serve(config, data, accept_loss, run::Program::Mediator)
        }
        What::ControlPoint(options) => control_point::run(&options),
        What::Replay(options) => match replay::play_all(&options) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(e) => Err(e),
        },
        What::Licence(what) => licence::run(what),
        What::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "hypha", &mut std::io::stdout());
            Ok(())
        }
        What::Man { directory } => clap_mangen::generate_to(Cli::command(), directory).map_err(Into::into),
        What::Audit(what) => audit(what),
        What::Speech(what) => speech(what),
        What::Recogniser { engine, model } => {
            let kept = speech::keep(engine, model);
            if let Err(e) = &kept {
                eprintln!("hypha recogniser: {e}");
            }
            // Its threads may be in the middle of something the node no longer wants.
            std::process::exit(i32::from(kept.is_err()))
        }
        What::Config { ask: Some(file), .. } => {
            ask::ask(&file, &mut std::io::stdin().lock(), &mut std::io::stdout()).map_err(Into::into)
        }
        What::Config { print: false, check: None, .. } => {
            Err("say --print, --check FILE or --ask FILE".into())
        }
        What::Config { print, check, .. } => {
            config::Config::read_right(check.as_deref()).map_err(Into::into).map(|_| match print {
                true => print!("{}", config::DEFAULTS),
                false => println!("ok"),
            })
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("hypha: {e}");
            ExitCode::from(2)
        }
    }
}
