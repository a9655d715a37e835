//! Recordings of single processes. Each is a `memtrace record` of its own, which ends when the daemon does,
//! however that ends.

mod child;
mod folder;

use std::{
    collections::HashMap,
    fs::File,
    future,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
};

use self::{child::Child, folder::Folder};
use crate::{model::top::Id, source::procfs};

/// Recordings at one time.
const AT_ONCE: usize = 2;
/// How long those that are being made may take to end with the daemon.
const PATIENCE: Duration = Duration::from_secs(10);

/// How recordings are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// Where they are.
    pub(super) folder: PathBuf,
    /// One ends when it has so many bytes.
    pub(super) size: u64,
    /// So many are kept.
    pub(super) kept: usize,
}

/// A recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Recording {
    /// Its name: `COMM-PID-SECONDS`.
    pub(super) id: String,
    pub(super) tgid: u32,
    /// The name of the process, with a `_` for what a file's name better has not.
    pub(super) comm: String,
    /// When it began, seconds since 1970.
    pub(super) started_unix_s: u64,
    pub(super) state: State,
    /// The rule that was met, if nobody asked.
    pub(super) rule: Option<String>,
    /// Bytes of its trace, when it is done.
    pub(super) bytes: Option<u64>,
    /// Why there is no trace.
    pub(super) why_not: Option<String>,
}

/// What a recording is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    Running,
    Done,
    Failed,
}

/// Why something is not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("no folder for recordings is configured")]
    Off,
    #[error("{AT_ONCE} recordings are being made, which is the most")]
    TooMany,
    #[error("it is being recorded already")]
    Already,
    #[error("the process is gone")]
    Gone,
    #[error("there is no such recording")]
    Unknown,
    #[error("it has ended")]
    Ended,
    #[error("it is being made: stop it first")]
    Running,
    #[error("{0}")]
    Failed(String),
}

/// All recordings: those that are being made, and those in the folder.
pub(super) struct Recordings {
    folder: Option<Folder>,
    /// The oldest first.
    known: Vec<Recording>,
    /// How to stop those that are being made, by name.
    stops: HashMap<String, oneshot::Sender<()>>,
    made: JoinSet<(String, Result<u64, String>)>,
    list: watch::Sender<Arc<[Recording]>>,
}

impl Recordings {
    /// Takes those in that are in the folder.
    pub(super) fn open(settings: Option<Settings>) -> Result<Self, String> {
        let (list, _) = watch::channel(Arc::from([]));
        let mut recordings = Self {
            folder: None,
            known: Vec::new(),
            stops: HashMap::new(),
            made: JoinSet::new(),
            list,
        };
        recordings.set(settings)?;
        Ok(recordings)
    }

    /// Makes them otherwise from now on.
    pub(super) fn set(&mut self, settings: Option<Settings>) -> Result<(), String> {
        if settings.as_ref() == self.folder.as_ref().map(Folder::settings) {
            return Ok(());
        }
        self.known.retain(|recording| recording.state == State::Running);
        self.folder = settings.map(Folder::open).transpose()?;
        if let Some(folder) = &self.folder {
            self.known.splice(0..0, folder.list()?);
        }
        self.show();
        Ok(())
    }

    /// Returns what is told of them.
    pub(super) fn list(&self) -> watch::Receiver<Arc<[Recording]>> {
        self.list.subscribe()
    }

    /// Begins to record a process.
    pub(super) fn start(
        &mut self,
        id: Id,
        comm: &str,
        duration: Duration,
        rule: Option<String>,
    ) -> Result<Recording, Refused> {
        let folder = self.folder.as_ref().ok_or(Refused::Off)?;
        let is_its = |known: &&Recording| known.state == State::Running && known.tgid == id.tgid;
        if self.known.iter().any(|known| is_its(&known)) {
            return Err(Refused::Already);
        }
        if self.stops.len() >= AT_ONCE {
            return Err(Refused::TooMany);
        }
        let found = procfs::find(id.tgid).map_err(|error| Refused::Failed(error.to_string()))?;
        if found.is_none_or(|found| found.stat.start_ns != id.start_ns) {
            return Err(Refused::Gone);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut recording = Recording::beside(&self.known, comm, id.tgid, now);
        recording.rule = rule;
        folder.make_room(&mut self.known).map_err(Refused::Failed)?;
        let child = Child::start(folder, &recording, duration).map_err(Refused::Failed)?;
        log::info!("recording process {} for {duration:?}: {}", id.tgid, recording.id);
        let (stop, stopped) = oneshot::channel();
        let name = recording.id.clone();
        self.made.spawn(async move { (name, child.wait(stopped).await) });
        self.stops.insert(recording.id.clone(), stop);
        self.known.push(recording.clone());
        self.show();
        Ok(recording)
    }

    /// Ends one before its time. Its trace stays.
    pub(super) fn stop(&mut self, name: &str) -> Result<(), Refused> {
        let known = self.known.iter().any(|known| known.id == name);
        let stop =
            self.stops.remove(name).ok_or(if known { Refused::Ended } else { Refused::Unknown })?;
        // It may just have ended.
        let _ = stop.send(());
        Ok(())
    }

    /// Opens the trace of one.
    pub(super) fn trace(&self, name: &str) -> Result<File, Refused> {
        let folder = self.folder.as_ref().ok_or(Refused::Off)?;
        let known = self.known.iter().find(|known| known.id == name).ok_or(Refused::Unknown)?;
        match known.state {
            State::Running => Err(Refused::Running),
            State::Failed => Err(Refused::Failed(known.why_not.clone().unwrap_or_default())),
            State::Done => File::open(folder.done(name))
                .map_err(|error| Refused::Failed(format!("cannot read it: {error}"))),
        }
    }

    /// Removes one with its trace.
    pub(super) fn remove(&mut self, name: &str) -> Result<(), Refused> {
        let folder = self.folder.as_ref().ok_or(Refused::Off)?;
        let at = self.known.iter().position(|known| known.id == name).ok_or(Refused::Unknown)?;
        match self.known[at].state {
            State::Running => return Err(Refused::Running),
            State::Done => folder.remove(name).map_err(Refused::Failed)?,
            State::Failed => {}
        }
        self.known.remove(at);
        self.show();
        Ok(())
    }

    /// Waits until one ends, for ever if there is none.
    pub(super) async fn one_ends(&mut self) {
        let Some(ended) = self.made.join_next().await else { return future::pending().await };
        let Ok((name, result)) = ended else { return };
        self.stops.remove(&name);
        let Some(known) = self.known.iter_mut().find(|known| known.id == name) else { return };
        match result {
            Ok(bytes) => {
                log::info!("recorded {name}: {bytes} bytes");
                (known.state, known.bytes) = (State::Done, Some(bytes));
            }
            Err(why) => {
                log::warn!("nothing was recorded of process {}: {why}", known.tgid);
                (known.state, known.why_not) = (State::Failed, Some(why));
            }
        }
        self.show();
    }

    /// Ends all that are being made, and waits for their traces.
    pub(super) async fn end(mut self) {
        self.stops.drain().for_each(|(_, stop)| _ = stop.send(()));
        let all = async { while self.made.join_next().await.is_some() {} };
        if tokio::time::timeout(PATIENCE, all).await.is_err() {
            log::warn!("a recording did not end in time and is lost");
        }
    }

    fn show(&self) {
        self.list.send_replace(self.known.as_slice().into());
    }
}

impl Recording {
    fn new(comm: &str, tgid: u32, started_unix_s: u64) -> Self {
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "._".contains(letter);
        let comm: String =
            comm.chars().map(|letter| if is_plain(letter) { letter } else { '_' }).collect();
        Self {
            id: format!("{comm}-{tgid}-{started_unix_s}"),
            tgid,
            comm,
            started_unix_s,
            state: State::Running,
            rule: None,
            bytes: None,
            why_not: None,
        }
    }

    /// Returns one with a name of its own: the clock may have been set back, and two may begin in a second.
    fn beside(known: &[Self], comm: &str, tgid: u32, mut started_unix_s: u64) -> Self {
        loop {
            let recording = Self::new(comm, tgid, started_unix_s);
            if known.iter().all(|known| known.id != recording.id) {
                return recording;
            }
            started_unix_s += 1;
        }
    }

    /// Returns what the name of a recording tells.
    fn named(name: &str) -> Option<Self> {
        let mut parts = name.split('-');
        let (comm, tgid, started) = (parts.next()?, parts.next()?, parts.next()?);
        let recording = Self::new(comm, tgid.parse().ok()?, started.parse().ok()?);
        (recording.id == name).then_some(recording)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_whose_it_is() {
        let recording = Recording::new("../Web Content\u{1b}é", 12, 34);
        assert_eq!(recording.id, ".._Web_Content__-12-34");
        assert_eq!(Recording::named(&recording.id), Some(recording));
        for other in ["", "a-b-c", "a-1-2-3", "a-01-2", "../a-1-2", "a-1", "notes.txt"] {
            assert_eq!(Recording::named(other), None, "{other}");
        }
    }

    #[test]
    fn no_two_have_the_same_name() {
        let mut known = vec![Recording::new("a", 1, 7), Recording::new("b", 1, 8)];
        for expected in ["a-1-8", "a-1-9"] {
            let recording = Recording::beside(&known, "a", 1, 7);
            assert_eq!(recording.id, expected);
            known.push(recording);
        }
        assert_eq!(Recording::beside(&known, "b", 1, 7).id, "b-1-7");
    }
}
