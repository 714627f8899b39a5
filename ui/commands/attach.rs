//! `masternode attach`: the console on a running node, here or over `ssh`; and the far end of that.
//!
//! Whatever ends the console (detach, hang-up, a signal), the node runs on; it is stopped by an order alone, which the
//! node takes from consoles that operate.

use crate::cli::{AttachArgs, LookArgs, ReplayArgs, ScreenArgs};
use crate::commands::{Failure, Outcome, locate, output, screen};
use crate::console::source::recording::{Playing, Recorder};
use crate::console::source::remote::{Manner, Orders, Remote};
use crate::console::source::target::Target;
use crate::console::state::Hosting;
use crate::console::{ConsoleError, Outcome as Left, Stop, spawn};
use masternode::config::{Config, ConsoleConfig};
use masternode::node::data_dir;
use masternode::primitives::chain::NetworkKind;
use masternode::rpc::attach::PERIOD_MS_MIN;
use masternode::rpc::client;
use masternode::rpc::control::{Answer, Envelope, PROTOCOL_VERSION, Request};
use masternode::rpc::mirror;
use std::io::{IsTerminal, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Between two changes over `ssh`: a line of the operator's may be slow.
const PERIOD_SSH_MS: u64 = 1_000;
/// How long a node may take to agree to stop, and then to go.
const AGREE_MAX: Duration = Duration::from_secs(10);
const STOP_MAX: Duration = Duration::from_secs(30);

/// # Errors
/// [`Failure`] when there is no such node, it refuses, or there is no terminal.
pub fn execute(args: &AttachArgs) -> Outcome {
    if args.stdio {
        return bridge(args);
    }
    if args.fleet {
        return fleet(args);
    }
    let (target, config) = match (&args.target, &args.socket) {
        (Some(at), _) => (
            Target::Ssh { at: at.clone(), program: args.remote_program.clone() },
            Config::defaults(NetworkKind::Mainnet).console,
        ),
        (None, Some(path)) => (Target::Socket(path.clone()), Config::defaults(NetworkKind::Mainnet).console),
        (None, None) => {
            let config = locate::config(&args.node)?;
            (Target::DataDir(config.data_dir), config.console)
        }
    };
    console(target, args.operate, &args.look, &config, args.record.as_deref())
}

/// `masternode replay`: plays what `attach --record` has written.
///
/// # Errors
/// [`Failure`] when there is no such recording or no terminal.
pub fn replay(args: &ReplayArgs) -> Outcome {
    needs_terminal()?;
    let config = Config::defaults(NetworkKind::Mainnet).console;
    let playing = Playing::default();
    let target = Target::Recording { path: args.file.clone(), speed: f64::from(args.speed), playing };
    let manner = Manner { operate: false, period_ms: PERIOD_MS_MIN };
    let opened = target.open(false, manner.period_ms, true).map_err(Failure::failed)?;
    let mut options = screen::options(&args.look, &config, opened.1.name.as_str());
    options.can_detach = true;
    options.hosting = Hosting::Replay;
    let (source, orders) =
        Remote::start(vec![(target, Some(opened))], manner, None).map_err(Failure::failed)?;
    let left = watch(options, source);
    orders.close();
    left.map(|_| ())
}

/// Opens the console on all nodes of the fleet. None of them has to be there.
fn fleet(args: &AttachArgs) -> Outcome {
    let config = locate::config(&args.node)?;
    needs_terminal()?;
    if config.console.fleet.is_empty() {
        let file = locate::config_file(&args.node)?;
        return Err(Failure::Refused(format!(
            "{}: `console.fleet` is empty: name the nodes there, as in fleet = [\"/srv/node1\", \"ssh://op@north.example\"]",
            file.display()
        )));
    }
    let mut targets = Vec::new();
    for entry in &config.console.fleet {
        let target = Target::of_fleet(entry, &args.remote_program).map_err(Failure::refused)?;
        targets.push((target, None));
    }
    let mut options = screen::options(&args.look, &config.console, "fleet");
    options.can_detach = true;
    options.fleet = true;
    options.hosting = if args.operate { Hosting::Operate } else { Hosting::View };
    let manner = Manner { operate: args.operate, period_ms: PERIOD_SSH_MS };
    let (source, orders) = Remote::start(targets, manner, None).map_err(Failure::failed)?;
    let left = watch(options, source)?;
    let outcome = match left {
        Left::Stop { node } => stop(&orders, node),
        Left::Detach => output::write("detached: the nodes run on\n"),
        Left::Told | Left::TerminalLost(_) => Ok(()),
    };
    orders.close();
    outcome
}

fn needs_terminal() -> Outcome {
    match std::io::stdout().is_terminal() {
        true => Ok(()),
        false => Err(Failure::failed(
            "attach needs a terminal; without one use `masternode status`, `--plain` or `--json`",
        )),
    }
}

/// What `masternode run` does where a node runs already: asks whether to open its console, where there is somebody to
/// ask. `None` where none runs.
///
/// # Errors
/// [`Failure::Refused`] with the commands to choose from, where nobody can be asked or the answer is no.
pub fn instead(config: &Config, args: &ScreenArgs) -> Result<Option<Outcome>, Failure> {
    if !data_dir::is_locked(&config.lock_path()) {
        return Ok(None);
    }
    let Err(in_use) = data_dir::lock(&config.data_dir, &config.lock_path()) else { return Ok(None) };
    let asked = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if args.no_tui || !asked {
        return Err(Failure::refused(in_use));
    }
    output::note(&format!("masternode: {in_use}"));
    output::note("Open its console, to look only? [Y/n]");
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer).map_err(Failure::failed)?;
    if read == 0 || !matches!(answer.trim().to_lowercase().as_str(), "" | "y" | "yes") {
        return Err(Failure::failed("nothing was started"));
    }
    let target = Target::DataDir(config.data_dir.clone());
    Ok(Some(console(target, false, &args.look, &config.console, None)))
}

/// Opens the console on one node.
fn console(
    target: Target,
    operate: bool,
    look: &LookArgs,
    config: &ConsoleConfig,
    record: Option<&Path>,
) -> Outcome {
    needs_terminal()?;
    let period_ms = if matches!(target, Target::Ssh { .. }) { PERIOD_SSH_MS } else { PERIOD_MS_MIN };
    // Before the console takes the terminal: ssh may have to ask for a passphrase.
    let (stream, host) = target.open(operate, period_ms, false).map_err(Failure::failed)?;
    let mut options = screen::options(look, config, host.name.as_str());
    options.can_detach = true;
    options.hosting = if host.operate { Hosting::Operate } else { Hosting::View };
    let shown = target.to_string();
    let recorder = record.map(|file| {
        Recorder::create(file, host.name.as_str())
            .map_err(|error| Failure::failed(format!("{}: cannot be made: {error}", file.display())))
    });
    let recorder = recorder.transpose()?;
    let manner = Manner { operate, period_ms };
    let (source, orders) = Remote::start(vec![(target, Some((stream, host.clone())))], manner, recorder)
        .map_err(Failure::failed)?;
    let left = watch(options, source)?;
    let outcome = match left {
        Left::Stop { node } => stop(&orders, node),
        Left::Detach => output::write(&format!("detached: {} runs on at {shown}\n", host.name)),
        // Nobody is there to read anything.
        Left::Told | Left::TerminalLost(_) => Ok(()),
    };
    orders.close();
    outcome
}

/// Runs the console until the operator leaves, the terminal goes away, or a signal says so.
fn watch(options: crate::console::ConsoleOptions, source: Remote) -> Result<Left, Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
    runtime.block_on(async {
        let kinds = (SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup());
        let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) =
            (signal(kinds.0), signal(kinds.1), signal(kinds.2))
        else {
            return Err(Failure::failed("the system does not let signals be handled"));
        };
        let stop = Stop::default();
        let (tell, mut left) = oneshot::channel();
        let done = move |outcome: Result<Left, ConsoleError>| drop(tell.send(outcome));
        let thread = spawn(options, Box::new(source), stop.clone(), done).map_err(Failure::failed)?;
        let outcome = loop {
            tokio::select! {
                outcome = &mut left => break outcome,
                _ = interrupt.recv() => stop.tell(),
                _ = terminate.recv() => stop.tell(),
                _ = hangup.recv() => stop.tell(),
            }
        };
        // Ends with its outcome, the terminal restored.
        let _ended = thread.join();
        match outcome {
            Ok(outcome) => outcome.map_err(Failure::failed),
            Err(_) => Err(Failure::failed("the console ended without saying why")),
        }
    })
}

fn stop(orders: &Orders, node: usize) -> Outcome {
    let name = orders.name(node);
    let request = Request::Stop { reason: "from an attached console".to_owned() };
    let refused = |reason| Failure::failed(format!("node {name} was not stopped: {reason}"));
    match orders.ask(node, request, AGREE_MAX).map_err(refused)? {
        Answer::Stopping if orders.wait_gone(node, STOP_MAX) => {
            output::write(&format!("node {name} is stopping in order\n"))
        }
        Answer::Stopping => Err(Failure::failed(format!("node {name} is still stopping: see its log"))),
        _ => Err(refused("it answered something else".to_owned())),
    }
}

/// Hands bytes between the standard streams and the node of this machine. Whether the far console may operate is
/// decided here: it must have asked for it, and `--operate` must be given here.
fn bridge(args: &AttachArgs) -> Outcome {
    let mut stdin = std::io::stdin();
    let first = mirror::read_frame(&mut stdin).map_err(Failure::failed)?;
    match connect(args, &first) {
        Ok(stream) => relay(&stream),
        Err(failure) => {
            // Told in the frames the far console reads.
            let body = Answer::Refused { reason: failure.to_string() };
            let answer =
                serde_json::to_vec(&Envelope { version: PROTOCOL_VERSION, body }).unwrap_or_default();
            let mut frame = Vec::new();
            mirror::write_frame(&mut frame, &answer).map_err(Failure::failed)?;
            output::pass_on(frame.as_slice());
            Err(failure)
        }
    }
}

/// Connects and attaches as the first frame of the far console asks.
fn connect(args: &AttachArgs, first: &[u8]) -> Result<UnixStream, Failure> {
    let mut stream = match &args.socket {
        Some(path) => UnixStream::connect(path)
            .map_err(|error| Failure::failed(format!("cannot connect to {}: {error}", path.display())))?,
        None => client::stream(&locate::config(&args.node)?.data_dir).map_err(Failure::failed)?,
    };
    let mut hello: Envelope<Request> = serde_json::from_slice(first)
        .map_err(|error| Failure::failed(format!("what came is not understood: {error}")))?;
    match &mut hello.body {
        Request::Attach { operate, .. } => *operate = *operate && args.operate,
        _ => return Err(Failure::failed("only a console is served here")),
    }
    let hello = serde_json::to_vec(&hello).map_err(Failure::failed)?;
    // A node that lets nobody in says so and closes before it reads: its words are worth more than this error.
    let _told_by_what_comes = mirror::write_frame(&mut stream, &hello);
    Ok(stream)
}

fn relay(stream: &UnixStream) -> Outcome {
    let (mut up, down) =
        (stream.try_clone().map_err(Failure::failed)?, stream.try_clone().map_err(Failure::failed)?);
    let upward = move || {
        let mut stdin = std::io::stdin();
        let mut bytes = [0; 4096];
        while let Ok(length @ 1..) = stdin.read(&mut bytes) {
            if std::io::Write::write_all(&mut up, bytes.get(..length).unwrap_or_default()).is_err() {
                break;
            }
        }
        // The far console has gone: the node is told, and the other direction ends.
        let _already_gone = up.shutdown(Shutdown::Both);
    };
    std::thread::Builder::new().name("upward".to_owned()).spawn(upward).map_err(Failure::failed)?;
    output::pass_on(down);
    let _already_gone = stream.shutdown(Shutdown::Both);
    Ok(())
}
