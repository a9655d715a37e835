//! The configuration of the daemon: TOML, with a default for everything.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use anyhow::anyhow;
use serde::{Deserialize, Deserializer, de::Error as _};

use super::recordings::Settings;
use crate::{
    cli::{
        Failure, Level, duration, gather::WalkPlan, nanoseconds, parse_size, serve::export::Otlp,
    },
    model::{
        rules::{Figure, Rule},
        top::Walkable,
        watchdog::Shed,
    },
};

/// What is configured. A field that is not known is an error.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Config {
    /// `ADDRESS:PORT`, or `unix:PATH`.
    pub(super) listen: Listen,
    /// A file with the token that requests have to bear.
    pub(super) token_file: Option<PathBuf>,
    /// How often the machine is read.
    #[serde(deserialize_with = "time")]
    pub(super) interval: Duration,
    /// What is counted rests on it; the most that the kernel gives when none is named.
    #[serde(deserialize_with = "level")]
    pub(super) evidence: Option<Level>,
    /// The part of a CPU that the daemon may take, in millionths, on average over a time.
    #[serde(deserialize_with = "share")]
    pub(super) budget: u32,
    #[serde(deserialize_with = "time")]
    pub(super) budget_over: Duration,
    /// Whether it is measured how long the probes run.
    pub(super) measure_probes: bool,
    /// The part of a CPU that walks may take, in millionths.
    #[serde(deserialize_with = "share")]
    pub(super) walk_budget: u32,
    /// Names of the processes that may be walked; all where none is named.
    pub(super) walk_only: Vec<String>,
    /// Names of processes that are never walked.
    pub(super) walk_never: Vec<String>,
    /// Processes that are told by name, by each of three figures.
    pub(super) top_processes: usize,
    /// Cgroups that are told by name.
    pub(super) top_cgroups: usize,
    /// The folder of recordings; none are made without one.
    pub(super) recordings: Option<PathBuf>,
    /// A recording ends when it has so many bytes.
    #[serde(deserialize_with = "bytes")]
    pub(super) recording_size: u64,
    /// So many recordings are kept.
    pub(super) recordings_kept: usize,
    /// What is recorded without being asked for.
    #[serde(deserialize_with = "rules")]
    pub(super) rules: Vec<Rule>,
    /// Where metrics are sent.
    pub(super) otlp: Otlp,
}

/// Where requests come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Listen {
    /// An address and a port.
    Tcp(std::net::SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        let address = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/').parse();
        address
            .map(Self::Tcp)
            .map_err(|_| "must be ADDRESS:PORT, such as 127.0.0.1:9477, or unix:PATH".to_owned())
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What is the case where nothing is configured, for people to start from.
pub(super) const DEFAULT: &str = include_str!("default.toml");

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Listen::Tcp(([127, 0, 0, 1], 9477).into()),
            token_file: None,
            interval: Duration::from_secs(10),
            evidence: None,
            budget: 20_000,
            budget_over: Duration::from_secs(60),
            measure_probes: false,
            walk_budget: 5000,
            walk_only: Vec::new(),
            walk_never: Vec::new(),
            top_processes: 20,
            top_cgroups: 50,
            recordings: None,
            recording_size: 256 << 20,
            recordings_kept: 20,
            rules: Vec::new(),
            otlp: Otlp::default(),
        }
    }
}

impl Config {
    /// Reads a file.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(path).map_err(|error| {
            Failure::unread(
                path,
                &error,
                "`memtrace serve --print-config` writes one to start from",
            )
        })?;
        Self::parse(&text).map_err(|error| {
            let error = anyhow!("{}: {error}", path.display());
            Failure::new(Failure::USAGE, error, "`memtrace serve --print-config` shows every field")
        })
    }

    /// Errors: a sentence with the line.
    fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
            let message = error.message().trim();
            line.map_or(message.to_owned(), |line| format!("line {line}: {message}"))
        })?;
        config.check()?;
        Ok(config)
    }

    /// Checks what fields say together.
    fn check(&self) -> Result<(), String> {
        let is_open = matches!(&self.listen, Listen::Tcp(address) if !address.ip().is_loopback());
        if is_open && self.token_file.is_none() {
            return Err("listen: an address that others can reach needs a token_file".to_owned());
        }
        if self.interval < Duration::from_millis(100) {
            return Err("interval: must be 100ms at least".to_owned());
        }
        let is_shut = self.token_file.is_some() || matches!(self.listen, Listen::Unix(_));
        if self.recordings.is_some() && !is_shut {
            return Err(
                "recordings: need a token_file, or a Unix socket to listen on: whoever may ask may start them"
                    .to_owned(),
            );
        }
        if self.recordings.is_none() && !self.rules.is_empty() {
            return Err("rules: need a folder for recordings".to_owned());
        }
        if self.recordings_kept == 0 {
            return Err("recordings_kept: must be 1 at least".to_owned());
        }
        if self.top_processes > 1000 || self.top_cgroups > 1000 {
            return Err("top_processes and top_cgroups: must be 1000 at most".to_owned());
        }
        self.otlp.check()
    }

    /// Returns what may be walked.
    pub(super) fn walks(&self) -> WalkPlan {
        let walkable = Walkable { only: self.walk_only.clone(), never: self.walk_never.clone() };
        WalkPlan { share: self.walk_budget, walkable }
    }

    /// Returns what may be walked when something is left out.
    pub(super) fn walks_but(&self, shed: Shed) -> WalkPlan {
        let walks = self.walks();
        if shed.walks { WalkPlan { share: 0, ..walks } } else { walks }
    }

    /// Returns the time over which the budget is, ns.
    pub(super) fn budget_over_ns(&self) -> u64 {
        nanoseconds(self.budget_over)
    }

    /// Returns how recordings are made, if they are.
    pub(super) fn recordings(&self) -> Option<Settings> {
        let folder = self.recordings.clone()?;
        Some(Settings { folder, size: self.recording_size, kept: self.recordings_kept })
    }

    /// Returns the token that requests have to bear, if one is configured.
    pub(super) fn token(&self) -> Result<Option<String>, Failure> {
        self.token_file.as_deref().map(read_token).transpose()
    }
}

/// Reads a file with a token.
pub(in crate::cli) fn read_token(path: &Path) -> Result<String, Failure> {
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::unread(path, &error, "write one line of random text to it"))?;
    let token = text.trim();
    if token.len() < 16 || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let error = anyhow!("{} has no token", path.display());
        let hint = "it must be 16 visible ASCII characters at least: `openssl rand -hex 32`";
        return Err(Failure::new(Failure::USAGE, error, hint));
    }
    Ok(token.to_owned())
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

pub(super) fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    duration(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

fn level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Level>, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "most" => Ok(None),
        "rss" => Ok(Some(Level::Rss)),
        "frames" => Ok(Some(Level::Frames)),
        _ => Err(D::Error::custom("must be \"most\", \"rss\" or \"frames\"")),
    }
}

/// Reads a part in per cent.
fn share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let text = String::deserialize(deserializer)?;
    let percent = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    percent
        .filter(|percent| (0.0..=100.0).contains(percent))
        .map(|percent| (percent * 10_000.0).round() as u32)
        .ok_or_else(|| D::Error::custom("must be a part of a CPU between \"0%\" and \"100%\""))
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    parse_size(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// A rule as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(deserialize_with = "condition")]
    when: (Figure, u64),
    #[serde(rename = "for", deserialize_with = "time")]
    lasts: Duration,
    #[serde(deserialize_with = "time")]
    record: Duration,
    #[serde(default)]
    only: Vec<String>,
}

fn rules<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Rule>, D::Error> {
    let written = Vec::<Written>::deserialize(deserializer)?;
    let rule = |Written { when: (figure, above), lasts, record, only }| {
        let [lasts_ns, record_ns] = [lasts, record].map(nanoseconds);
        Rule { figure, above, lasts_ns, record_ns, only }
    };
    Ok(written.into_iter().map(rule).collect())
}

/// Reads `FIGURE > SIZE`.
fn condition<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(Figure, u64), D::Error> {
    let text = String::deserialize(deserializer)?;
    let figure = |name: &str| Figure::ALL.into_iter().find(|figure| figure.name() == name.trim());
    text.split_once('>')
        .and_then(|(name, above)| Some((figure(name)?, parse_size(above.trim()).ok()?)))
        .ok_or_else(|| {
            let names = Figure::ALL.map(Figure::name).join(", ");
            D::Error::custom(format!(
                "must be FIGURE > SIZE, such as resident > 2G, with one of {names}"
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_what_is_the_case() {
        assert_eq!(Config::parse(DEFAULT), Ok(Config::default()));
        assert_eq!(Config::parse(""), Ok(Config::default()));
        // Each field is there, as it is or to be taken in.
        let (own, rest) = DEFAULT.split_once("#[[rules]]").expect("tables come last");
        let (rules, otlp) = rest.split_once("[otlp]\n").expect("the table is the last");
        are_fields_of::<Config>(&format!("{own}rules = 1\notlp = 1"));
        are_fields_of::<Otlp>(otlp);
        // The rule that is shown is one.
        let lines = rules.lines().map(|line| match line.strip_prefix('#') {
            Some(field) if !field.starts_with(' ') => field,
            _ => line,
        });
        let rule = format!("[[rules]]{}", lines.collect::<Vec<_>>().join("\n"));
        let config: Config = toml::from_str(&rule).expect("it can be taken in");
        assert_eq!(config.rules[0].to_string(), "freed_not_reclaimed > 524288000");
        assert_eq!(config.rules[0].only, ["java"]);
    }

    /// Asserts that the lines of a text, as they are or to be taken in, have each field and no other.
    #[track_caller]
    fn are_fields_of<T: serde::de::DeserializeOwned + std::fmt::Debug>(text: &str) {
        let fields = text.lines().filter_map(|line| line.split_once(" = "));
        let fields: Vec<&str> = fields.map(|(field, _)| field.trim_start_matches('#')).collect();
        let unknown = toml::from_str::<T>("nothing = 1").expect_err("it is not known");
        for field in &fields {
            assert!(unknown.message().contains(&format!("`{field}`")), "{field}: {unknown}");
        }
        assert_eq!(fields.len(), unknown.message().matches('`').count() / 2 - 1, "{unknown}");
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        for (text, expected) in [
            ("interval = \"10s\"\nlisten = \"here\"", "line 2: must be ADDRESS:PORT"),
            ("\n\ntop = 3", "line 3: unknown field `top`"),
            ("walk_budget = \"0.5\"", "line 1: must be a part of a CPU"),
            ("walk_budget = \"101%\"", "line 1: must be a part of a CPU"),
            ("evidence = \"args\"", "line 1: must be \"most\""),
            ("interval = \"1s\"\nlisten", "line 2: key with no value"),
            ("interval = \"1ms\"", "interval: must be 100ms"),
            ("listen = \"0.0.0.0:1\"", "needs a token_file"),
            ("top_processes = 5000", "must be 1000 at most"),
            ("recordings = \"/x\"", "need a token_file"),
            ("[[rules]]\nwhen = \"resident > 1\"\nfor = \"1s\"\nrecord = \"1s\"", "need a folder"),
            ("[[rules]]\nwhen = \"resident < 1\"", "line 2: must be FIGURE > SIZE"),
            ("[[rules]]\nwhen = \"size > 1\"", "line 2: must be FIGURE > SIZE"),
            ("recording_size = \"big\"", "line 1: must be a size"),
            ("recordings_kept = 0", "must be 1 at least"),
            ("[otlp]\nendpoint = \"https://x\"", "line 2: must be http://HOST:PORT"),
            ("[otlp]\ninterval = \"10ms\"", "otlp.interval: must be 1s"),
        ] {
            let error = Config::parse(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn values_are_taken() {
        let text = "listen = \"unix:/run/x.sock\"\nwalk_budget = \"2.5 %\"\nevidence = \"rss\"";
        let config = Config::parse(text).expect("it is right");
        assert_eq!(config.listen, Listen::Unix("/run/x.sock".into()));
        assert_eq!((config.walk_budget, config.evidence), (25_000, Some(Level::Rss)));
        let open = "listen = \"[::]:9477\"\ntoken_file = \"/etc/memtrace/token\"";
        assert!(Config::parse(open).is_ok());
    }
}
