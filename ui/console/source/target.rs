//! Which node a console is attached to, and the stream of bytes to it: the socket in a data directory, a socket by
//! its path, or `masternode attach --stdio` at the far end of the operator's own `ssh`.
//!
//! Nothing listens on a network for this, and no secret passes through here: `ssh` asks on its terminal itself.

use crate::console::source::recording::{self, Playing};
use masternode::rpc::client::{self, ClientError};
use masternode::rpc::mirror::{self, Host, MirrorError};
use parking_lot::Mutex;
use std::fmt;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

/// How long a node on this machine may take to answer.
const GREETING_MAX: Duration = Duration::from_secs(10);
/// A node says something at least every two seconds; silent for so long, it or the way to it is gone.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long `ssh` may take to say why, once nothing comes from the other side any more.
const LAST_WORDS_MAX: Duration = Duration::from_secs(2);
/// Bytes of what `ssh` says that are kept: the last ones hold the reason.
const WORDS_MAX: usize = 2_000;

/// See the module.
#[derive(Clone, Debug)]
pub enum Target {
    /// The node of a data directory.
    DataDir(PathBuf),
    /// The node behind a socket.
    Socket(PathBuf),
    /// A node on another machine; `program` is what `masternode` is called there.
    Ssh { at: SshTarget, program: String },
    /// A recording, played so many times as fast.
    Recording { path: PathBuf, speed: f64, playing: Playing },
}

/// `ssh://[USER@]HOST[:PORT][/DIR]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshTarget {
    pub user: Option<String>,
    pub host: String,
    pub port: Option<u16>,
    /// Data directory there; that of the remote program's default if `None`.
    pub data_dir: Option<String>,
}

/// A text that names no such target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no node: write ssh://USER@HOST, ssh://USER@HOST:PORT or ssh://USER@HOST/DATA/DIR")]
pub struct NoTarget(String);

/// Why a console cannot be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error(transparent)]
    Local(#[from] ClientError),
    #[error("cannot connect to {path}: {source}", path = path.display())]
    Socket { path: PathBuf, source: std::io::Error },
    #[error("{path} cannot be played: {source}", path = path.display())]
    Recording { path: PathBuf, source: std::io::Error },
    #[error("cannot start ssh: {0}; attaching to another machine needs the program `ssh`")]
    NoSsh(std::io::Error),
    #[error("ssh to {at} ended: {words}")]
    Ssh { at: String, words: String },
    #[error(transparent)]
    Mirror(#[from] MirrorError),
}

impl FromStr for SshTarget {
    type Err = NoTarget;

    fn from_str(text: &str) -> Result<Self, NoTarget> {
        let refused = || NoTarget(text.chars().take(200).collect());
        let rest = text.strip_prefix("ssh://").ok_or_else(refused)?;
        let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, place) = match place.rsplit_once('@') {
            Some((user, place)) => (Some(user.to_owned()), place),
            None => (None, place),
        };
        let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or_else(refused)?)),
            None => match place.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            },
        };
        let port = port.map(|port| port.parse().map_err(|_| refused())).transpose()?;
        // A name that begins with a dash would be an option to ssh.
        let is_name = |name: &str| {
            !name.is_empty()
                && !name.starts_with('-')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-:%".contains(c))
        };
        if !is_name(host) || user.as_deref().is_some_and(|user| !is_name(user)) {
            return Err(refused());
        }
        if path.chars().any(char::is_control) {
            return Err(refused());
        }
        let data_dir = match path {
            "" => None,
            home if home.starts_with("~/") => Some(home.to_owned()),
            path => Some(format!("/{path}")),
        };
        Ok(Self { user, host: host.to_owned(), port, data_dir })
    }
}

impl fmt::Display for SshTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        write!(f, "{}", self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// `text` as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

impl SshTarget {
    /// The command that reaches the node there. Asks nothing of the operator if `silent`: the console has the terminal
    /// then.
    fn command(&self, program: &str, operate: bool, silent: bool) -> Command {
        let mut command = Command::new("ssh");
        // What changes is text, most of it like the text before.
        command.args(["-T", "-C", "-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3"]);
        if silent {
            command.args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]);
        }
        if let Some(port) = self.port {
            command.args(["-p", &port.to_string()]);
        }
        if let Some(user) = &self.user {
            command.args(["-l", user]);
        }
        let mut there = format!("{} attach --stdio", quoted(program));
        if operate {
            there.push_str(" --operate");
        }
        if let Some(dir) = &self.data_dir {
            // The shell there knows whose home it is.
            match dir.strip_prefix("~/") {
                Some(rest) => there.push_str(&format!(" --data-dir ~/{}", quoted(rest))),
                None => there.push_str(&format!(" --data-dir {}", quoted(dir))),
            }
        }
        command.args(["--", &self.host, &there]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DataDir(path) | Self::Socket(path) | Self::Recording { path, .. } => {
                write!(f, "{}", path.display())
            }
            Self::Ssh { at, .. } => write!(f, "{at}"),
        }
    }
}

/// A stream to a node that has taken this console.
pub struct Stream {
    pub reader: Box<dyn Read + Send>,
    pub writer: Box<dyn Write + Send>,
    pub closer: Closer,
}

/// Ends a stream when dropped, whoever reads it.
pub enum Closer {
    Socket(UnixStream),
    Ssh {
        child: Child,
        words: Arc<Mutex<String>>,
        silent: Receiver<()>,
    },
    /// Tells the player that nobody watches any more.
    Recording(Arc<AtomicBool>),
}

impl Closer {
    /// What `ssh` said last, once it has ended.
    fn words(&mut self) -> Option<String> {
        let Self::Ssh { child, words, silent } = self else { return None };
        // Its output has ended, so it is ending, and its last words are on their way; if it is not, it is ended. A
        // connection that several share may keep them open for good.
        let _all_heard = silent.recv_timeout(LAST_WORDS_MAX);
        let _already_gone = child.kill();
        let _already_gone = child.wait();
        let words = words.lock().trim().to_owned();
        Some(if words.is_empty() { "without saying why".to_owned() } else { words })
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        match self {
            Self::Socket(stream) => drop(stream.shutdown(Shutdown::Both)),
            Self::Recording(over) => over.store(true, Ordering::Relaxed),
            Self::Ssh { child, .. } => {
                let _already_gone = child.kill();
                let _already_gone = child.wait();
            }
        }
    }
}

impl Target {
    /// What an entry of `console.fleet` names: a far node, a socket or a data directory. `~` is the home of the operator.
    ///
    /// # Errors
    /// [`NoTarget`].
    pub fn of_fleet(text: &str, program: &str) -> Result<Self, NoTarget> {
        if text.starts_with("ssh://") {
            return Ok(Self::Ssh { at: text.parse()?, program: program.to_owned() });
        }
        let path = match (text.strip_prefix("~/"), std::env::var_os("HOME")) {
            (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
            _ => PathBuf::from(text),
        };
        // A socket may not be there yet; by its name it is told from a directory.
        let is_socket = path.extension().is_some_and(|extension| extension == "sock");
        Ok(if is_socket { Self::Socket(path) } else { Self::DataDir(path) })
    }

    /// Connects and attaches. Blocks; over `ssh` for as long as the operator takes to log in, unless `silent`.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn open(&self, operate: bool, period_ms: u64, silent: bool) -> Result<(Stream, Host), AttachError> {
        let (mut reader, mut writer, mut closer) = match self {
            Self::DataDir(dir) => local(client::stream(dir)?)?,
            Self::Socket(path) => {
                let failed = |source| AttachError::Socket { path: path.clone(), source };
                local(UnixStream::connect(path).map_err(failed)?)?
            }
            Self::Recording { path, speed, playing } => {
                let failed = |source| AttachError::Recording { path: path.clone(), source };
                return recording::open(path, *speed, playing).map_err(failed);
            }
            Self::Ssh { at, program } => remote(at.command(program, operate, silent))?,
        };
        // A node that lets nobody in says so and closes before it reads: its words are worth more than this error.
        let _told_by_what_comes = mirror::write_frame(&mut writer, &mirror::hello(operate, period_ms)?);
        let greeted = mirror::read_frame(&mut reader).and_then(|frame| mirror::greeted(&frame));
        match greeted {
            Ok(host) => {
                if let Closer::Socket(stream) = &closer {
                    stream.set_read_timeout(Some(SILENCE_MAX)).map_err(MirrorError::Io)?;
                }
                Ok((Stream { reader, writer, closer }, host))
            }
            Err(error @ (MirrorError::Closed | MirrorError::Garbled(_))) => Err(match closer.words() {
                Some(words) => AttachError::Ssh { at: self.to_string(), words },
                None => error.into(),
            }),
            Err(error) => Err(error.into()),
        }
    }
}

type Ends = (Box<dyn Read + Send>, Box<dyn Write + Send>, Closer);

fn local(stream: UnixStream) -> Result<Ends, AttachError> {
    let prepared = (|| {
        stream.set_read_timeout(Some(GREETING_MAX))?;
        stream.set_write_timeout(Some(GREETING_MAX))?;
        Ok((stream.try_clone()?, stream.try_clone()?))
    })();
    let (reader, writer) = prepared.map_err(MirrorError::Io)?;
    Ok((Box::new(reader), Box::new(writer), Closer::Socket(stream)))
}

fn remote(mut command: Command) -> Result<Ends, AttachError> {
    let mut child = command.spawn().map_err(AttachError::NoSsh)?;
    let (reader, writer, says) = (child.stdout.take(), child.stdin.take(), child.stderr.take());
    let words = Arc::new(Mutex::new(String::new()));
    let (ended, silent) = sync_channel::<()>(0);
    let closer = Closer::Ssh { child, words: Arc::clone(&words), silent };
    let (Some(reader), Some(writer), Some(mut says)) = (reader, writer, says) else {
        return Err(AttachError::NoSsh(std::io::Error::other("it has no pipes")));
    };
    // Read all the time, so that ssh never waits; it would tear the screen.
    let listener = move || {
        let _ended = ended;
        let mut bytes = [0; 512];
        while let Ok(length @ 1..) = says.read(&mut bytes) {
            let new = String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).into_owned();
            let mut words = words.lock();
            words.push_str(&new.replace(|c: char| c.is_control() && c != '\n', "?"));
            let excess = words.chars().count().saturating_sub(WORDS_MAX);
            if excess > 0 {
                *words = words.chars().skip(excess).collect();
            }
        }
    };
    std::thread::Builder::new().name("ssh-words".to_owned()).spawn(listener).map_err(AttachError::NoSsh)?;
    Ok((Box::new(reader), Box::new(writer), closer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_anything_ssh_could_take_for_an_option_is_refused() {
        let full: SshTarget = "ssh://op@north.example:2222/srv/time coin".parse().unwrap();
        assert_eq!(
            (full.user.as_deref(), full.host.as_str(), full.port),
            (Some("op"), "north.example", Some(2222))
        );
        assert_eq!(full.data_dir.as_deref(), Some("/srv/time coin"));
        assert_eq!(full.to_string(), "op@north.example:2222");
        let six: SshTarget = "ssh://[2001:db8::1]:24".parse().unwrap();
        assert_eq!((six.host.as_str(), six.port, six.data_dir), ("2001:db8::1", Some(24), None));
        assert_eq!("ssh://h/~/coin".parse::<SshTarget>().unwrap().data_dir.as_deref(), Some("~/coin"));
        for wrong in [
            "north.example",
            "ssh://",
            "ssh://-oProxyCommand=x",
            "ssh://a@-x",
            "ssh://-a@x",
            "ssh://a b",
            "ssh://h:0x1",
            "ssh://h:99999",
            "ssh://@h",
            "ssh://h$(x)",
            "ssh://h/a\nb",
            "ssh://[::1",
            "ssh://[::1]x",
        ] {
            assert!(wrong.parse::<SshTarget>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_far_command_is_one_word_for_each_thing_the_operator_named() {
        let target: SshTarget = "ssh://op@h:7/it's; rm -rf x".parse().unwrap();
        let command = target.command("masternode", true, true);
        let arguments: Vec<_> = command.get_args().map(|word| word.to_str().unwrap()).collect();
        let [.., host, there] = arguments.as_slice() else { panic!("{arguments:?}") };
        assert_eq!(*host, "h");
        assert_eq!(*there, r"'masternode' attach --stdio --operate --data-dir '/it'\''s; rm -rf x'");
        assert!(arguments.windows(2).any(|pair| pair == ["-p", "7"]));
        assert!(arguments.contains(&"BatchMode=yes"));
        let asking = target.command("masternode", false, false);
        assert!(!asking.get_args().any(|word| word.to_str().is_some_and(|word| word.contains("BatchMode"))));
    }
}
