//! The command line, the same for every adapter: what is asked for, and how it ends.
//!
//! | exit status | meaning |
//! |---|---|
//! | 0 | done; for `serve`: drained |
//! | 1 | it cannot be done here and now: an occupied port, a file, a relay that is not well |
//! | 2 | it was asked for wrongly: a variable or an argument; nothing was started |
//! | 130, 143 | stopped at once by a second SIGINT or SIGTERM |

mod health;
mod serve;
mod token;

use std::env;
use std::fmt::{self, Write as _};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroU16;
use std::process::ExitCode;

use lexopt::{Arg, Parser};

use crate::log;
use crate::{Running, StartError, quarter_of_memory};
use relay_proto::config::{self, Settings, VARIABLES, Variable};

/// What a command line does not do itself.
#[derive(Debug)]
pub struct Adapter {
    /// The name of the program.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// How many shards it has where nobody says how many.
    pub auto_shards: fn() -> NonZeroU16,
    /// Starts a relay on sockets that listen already.
    pub spawn: fn(&Settings, &[TcpListener]) -> Result<Running, StartError>,
    /// Speaks TLS as a client that trusts whom it reached: for the health check of a relay on this machine.
    pub connect_tls: fn(TcpStream) -> io::Result<Box<dyn Duplex>>,
}

/// A stream to read from and to write to.
pub trait Duplex: Read + Write {}

impl<S: Read + Write> Duplex for S {}

/// Does what the arguments of this process say.
pub fn main(adapter: &Adapter) -> ExitCode {
    // Wherever it stands: whoever asks for help wants nothing else done.
    let wants_help = env::args().skip(1).any(|arg| arg == "--help" || arg == "-h");
    let outcome = if wants_help { print(&help(adapter)) } else { run(adapter, Parser::from_env()) };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{}: {}", adapter.name, failure.line);
            ExitCode::from(failure.status)
        }
    }
}

/// The end of a command that did not do what was asked.
#[derive(Debug)]
struct Failure {
    status: u8,
    line: String,
}

impl Failure {
    fn here_and_now(line: impl fmt::Display) -> Self {
        Self { status: 1, line: line.to_string() }
    }

    fn asked_wrongly(line: impl fmt::Display) -> Self {
        Self { status: 2, line: line.to_string() }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::here_and_now(error)
    }
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Self {
        Self::asked_wrongly(format!("{error}; see --help"))
    }
}

fn run(adapter: &Adapter, mut args: Parser) -> Result<(), Failure> {
    let command = match args.next()? {
        None => return serve::serve(adapter),
        Some(Arg::Long("version") | Arg::Short('V')) => {
            return print(&format!("{} {}\n", adapter.name, adapter.version));
        }
        Some(Arg::Value(command)) => command.to_string_lossy().into_owned(),
        Some(other) => return Err(other.unexpected().into()),
    };
    match command.as_str() {
        "serve" => no_more(args).and_then(|()| serve::serve(adapter)),
        "check" => no_more(args).and_then(|()| check(adapter)),
        "health" => health::health(adapter, args),
        "token" => token::token(args),
        "help" => print(&help(adapter)),
        _ => Err(Failure::asked_wrongly(format!("{command:?} is no command; see --help"))),
    }
}

fn no_more(mut args: Parser) -> Result<(), Failure> {
    match args.next()? {
        None => Ok(()),
        Some(arg) => Err(arg.unexpected().into()),
    }
}

/// A reader that has gone away (`| head`) is no failure of ours.
fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::here_and_now(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The variables of this process that are meant for a relay.
struct Environment(Vec<(String, String)>);

impl Environment {
    fn read() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
        };
        let mut vars: Vec<_> =
            env::vars_os().map(text).filter(|(name, _)| name.starts_with("RELAY_")).collect();
        vars.sort_unstable();
        Self(vars)
    }

    /// Rule C3.
    fn settings(&self) -> Result<Settings, Failure> {
        let vars = self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut settings = Settings::from_vars(vars).map_err(Failure::asked_wrongly)?;
        if log::filter(&settings.log).is_none() {
            let allowed =
                VARIABLES.iter().find(|variable| variable.name == "RELAY_LOG").map_or("", |v| v.allowed);
            let line = format!("RELAY_LOG={:?} cannot be used; it has to be {allowed}", settings.log);
            return Err(Failure::asked_wrongly(line));
        }
        if settings.relay.max_queued_bytes == config::AUTO {
            settings.relay.max_queued_bytes = quarter_of_memory();
        }
        Ok(settings)
    }

    /// Rule C4: each unknown variable with the known one that it was probably meant to be.
    fn unknown(&self) -> impl Iterator<Item = (&str, &'static str)> {
        let names = self.0.iter().map(|(name, _)| name.as_str());
        names.filter(|name| VARIABLES.iter().all(|variable| variable.name != *name)).filter_map(|name| {
            let nearest = VARIABLES.iter().min_by_key(|variable| distance(name, variable.name))?;
            Some((name, nearest.name))
        })
    }

    fn value_of(&self, variable: &Variable) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == variable.name).map(|(_, value)| value.as_str())
    }
}

/// Levenshtein's: how many letters have to be put in, taken out or changed.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Prints the configuration in the form of an environment file.
fn check(adapter: &Adapter) -> Result<(), Failure> {
    let environment = Environment::read();
    let settings = environment.settings()?;
    for (name, nearest) in environment.unknown() {
        eprintln!("{name} is not known and has no effect; did you mean {nearest}?");
    }
    let mut text = String::new();
    for variable in VARIABLES {
        let (value, origin) = match environment.value_of(variable) {
            Some(value) => (value, "set"),
            None => (variable.default, "default"),
        };
        let _ = writeln!(text, "# {} ({origin})\n{}={value}", variable.help, variable.name);
        if value == "auto" {
            let here = match variable.name {
                "RELAY_SHARDS" => settings.shards((adapter.auto_shards)()).get().into(),
                _ => settings.relay.max_queued_bytes,
            };
            let _ = writeln!(text, "# auto: {here} here");
        }
    }
    print(&text)
}

fn help(adapter: &Adapter) -> String {
    let mut text = format!(
        "{name} {version}: a WebSocket relay for end-to-end-encrypted rooms\n\n\
         Usage:\n  \
         {name} [serve]        serve until SIGTERM or SIGINT; a second one stops at once\n  \
         {name} check          read the configuration, print it, exit with 2 if it is wrong\n  \
         {name} health [URL]   exit with 0 if a relay is well; by default the one configured here\n  \
         {name} token ...      make a host key and tokens for a room; see below\n  \
         {name} --help | --version\n\n\
         {token}\n\
         Environment of serve, check and health:\n",
        name = adapter.name,
        version = adapter.version,
        token = token::HELP,
    );
    for variable in VARIABLES {
        let default = if variable.default.is_empty() { "not set" } else { variable.default };
        let _ = writeln!(text, "  {} [{default}]\n      {}", variable.name, variable.help);
    }
    text
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn c4_the_nearest_variable_is_named() {
        let environment = Environment(vec![
            ("RELAY_ADDR".into(), ":1".into()),
            ("RELAY_MAX_ROOM".into(), "1".into()),
            ("RELAY_TLS_CRT".into(), "x".into()),
        ]);
        let unknown: Vec<_> = environment.unknown().collect();
        assert_eq!(unknown, [("RELAY_MAX_ROOM", "RELAY_MAX_ROOMS"), ("RELAY_TLS_CRT", "RELAY_TLS_CERT")]);
    }

    #[test]
    fn c3_a_log_filter_is_judged_like_every_value() {
        let environment = Environment(vec![("RELAY_LOG".into(), "verbose".into())]);
        let failure = environment.settings().unwrap_err();
        assert_eq!(failure.status, 2);
        assert!(failure.line.starts_with("RELAY_LOG=\"verbose\" cannot be used"), "{}", failure.line);
    }

    #[test]
    fn auto_is_resolved() {
        let settings = Environment(Vec::new()).settings().unwrap();
        assert_ne!(settings.relay.max_queued_bytes, config::AUTO);
    }

    #[test]
    fn distances() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
